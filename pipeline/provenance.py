"""What a figure must be quoted with: the machine, the versions, the commit."""

import os
import platform
import subprocess
from importlib import metadata

import torch

_LIBRARIES = (
    "edgestill", "torch", "numpy", "optuna", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "executorch",
    "tensorrt", "nni", "prefect", "scikit-learn", "pydantic",
)  # fmt: skip


def describe_machine() -> dict[str, str | int]:
    """What a figure measured here must be quoted with."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device, not a file of ours
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def installed_versions() -> dict[str, str]:
    """The versions of what a figure depends on, as installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working folder, if it is in a git repository."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
