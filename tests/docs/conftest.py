"""The modules that make the site's pages."""

import sys
from pathlib import Path

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"
sys.path.append(str(HOOKS))
