"""Machine, versions and commit, which every figure must be quoted with."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from edgestill.pipeline.plugins import plugin_distributions

_LIBRARIES = (
    "edgestill", "torch", "numpy", "optuna", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "executorch",
    "tensorrt", "nni", "prefect", "scikit-learn", "pydantic",
)  # fmt: skip


def describe_machine() -> dict[str, str | int]:
    """Describe this machine, for every figure measured on it."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "gpu": _gpu(),
        "python": platform.python_version(),
    }


def _gpu() -> str:
    try:
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    except RuntimeError:  # a driver that does not fit
        return "unknown"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - a device, not a file of ours
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def installed_versions() -> dict[str, str]:
    """Versions of the installed libraries and plug-ins that figures depend on; "unknown" where metadata are broken."""
    found = {}
    for name in (*_LIBRARIES, *plugin_distributions()):
        try:
            found[name] = metadata.version(name) or "unknown"
        except metadata.PackageNotFoundError:
            continue
        except (OSError, ValueError, KeyError):
            found[name] = "unknown"
    return found


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that this code runs from; None where it was installed in another way."""
    here = Path(__file__).resolve()  # a package is a link in a checkout
    if not (here.parents[2] / ".git").exists():  # a .git further up is another project's
        return None
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # fails in a repository around site-packages
        return _git(here.parent, "rev-parse", "HEAD") or None
    except (OSError, subprocess.SubprocessError):  # no git, another repository, a hang, distrust of the folder
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]  # a repository's settings may name a program there
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
