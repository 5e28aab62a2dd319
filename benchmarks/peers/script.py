"""Run another tool's own script, SCRIPT [FLAG …], beside this environment's torchvision.

A teacher that timm's script names by `--kd-model-name` has random weights instead of a download.
"""

import runpy
import sys
from functools import wraps
from typing import Any

from edgestill.pipeline.torchvision_compat import repair


def without_download() -> None:
    from timm.task import distillation

    create = distillation.create_model

    @wraps(create)
    def untrained(*given: Any, **named: Any) -> Any:
        return create(*given, **named | {"pretrained": False, "pretrained_cfg_overlay": None})

    distillation.create_model = untrained


if __name__ == "__main__":
    repair()
    sys.argv = sys.argv[1:]
    if "--kd-model-name" in sys.argv:
        without_download()
    runpy.run_path(sys.argv[0], run_name="__main__")
