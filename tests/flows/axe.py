"""Accessibility of a page, by axe-core in headless Chromium."""

import html
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_LIGHT, _DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
_REPORT = """<script>
axe.run(document, {resultTypes: ["violations"]}).then(
  found => { document.body.innerHTML = "<pre id='axe'></pre>";
             document.getElementById("axe").textContent = JSON.stringify(found.violations); });
</script>"""


def axe_script() -> str | None:
    """Text of axe.min.js, which axe-playwright-python holds; None where that is not installed."""
    found = importlib.util.find_spec("axe_playwright_python")
    places = [] if found is None else [Path(place) for place in found.submodule_search_locations or ()]
    script = next((place / "axe.min.js" for place in places if (place / "axe.min.js").is_file()), None)
    return None if script is None else script.read_text(encoding="utf-8")


def violations(page: str, folder: Path, *, width: int = 1280, is_dark: bool = False) -> list[dict[str, Any]]:
    """Return axe's violations on a page, at a width in CSS pixels and in a colour scheme.

    Args:
        folder: for the page and Chromium's profile.
    """
    assert CHROMIUM is not None
    checked = folder / "checked.html"
    checked.write_text(page.replace("</body>", f"<script>{axe_script()}</script>{_REPORT}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000", _DARK if is_dark else _LIGHT,
            "--dump-dom", checked.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="axe">(.*)</pre>', done.stdout, re.DOTALL)
    assert found, "axe gave no answer"
    answer: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return answer
