"""Run timm's training script, SCRIPT [FLAG …], with a teacher of random weights instead of a download."""

import runpy
import sys
from functools import wraps
from typing import Any

import timm.task.distillation as distillation

if __name__ == "__main__":
    create = distillation.create_model

    @wraps(create)
    def untrained(*given: Any, **named: Any) -> Any:
        return create(*given, **named | {"pretrained": False, "pretrained_cfg_overlay": None})

    distillation.create_model = untrained
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
