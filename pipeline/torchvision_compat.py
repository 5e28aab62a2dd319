"""Repair of torchvision's import beside a torch of another build, such as a CPU torch with the registry's torchvision.

torchvision then fails with "operator torchvision::nms does not exist" (a RuntimeError) before any of its networks can
be built, and every library that imports it fails with it: timm, torchmetrics, lightning and so `nni.nas`. Its networks
and its transforms need none of its compiled operators. So the two operators that the import asks for are declared,
without an implementation.
"""

import importlib.util
import sys
import threading

import torch

_LOCK = threading.Lock()
_DECLARED = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # its declarations last as long as it does


def repair() -> None:
    """Make `import torchvision` work if it is installed; call it before libraries that import it. It costs that import.

    Any other failure is left to whoever imports torchvision.
    """
    global _library
    with _LOCK:
        if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None or _library is not None:
            return
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                return
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for name in _DECLARED:
                _library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            return
