"""`edgestill doctor`: checks of this machine and installation, a line each, with the fix beside a fault."""

import importlib
import locale
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from edgestill.flows.plan import surroundings
from edgestill.flows.plan.finding import Check
from edgestill.pipeline.errors import EdgestillError, first_line

_DISTRIBUTION = "edgestill"
_LEAST_DISK, _LEAST_MEMORY = 2e9, 2e9  # bytes; a run of small images takes less of each


def examine(runs: Path) -> Iterator[Check]:
    """Yield the findings; a check that fails by itself is a fault."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        _python, _libraries, surroundings.pinned, _torch, _export, _processor, surroundings.cores, _memory,
        lambda: _folders(runs), _gpu, surroundings.drivers, _torchvision, _extras, _prefect, surroundings.port,
        lambda: surroundings.databases(runs), lambda: surroundings.clock(runs), _terminal, _plugins,
    )  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a broken library may raise anything
            name = getattr(check, "__name__", "").removeprefix("_").replace("<lambda>", "folders")
            yield Check(name, f"{type(error).__name__}: {first_line(error)[:200]}", "install it again", is_fault=True)


def _python() -> Iterator[Check]:
    version = platform.python_version()
    is_old = sys.version_info < (3, 11)
    yield Check("python", f"{version} at {sys.executable}", "install Python 3.11 or newer" if is_old else "", is_old)


def _libraries() -> Iterator[Check]:
    """Compare the versions that are installed with those asked for."""
    wanted = [text for text in metadata.requires(_DISTRIBUTION) or () if "extra ==" not in text]
    problems = [problem for text in wanted if (problem := _unmet(text))]
    if not problems:
        yield Check("libraries", f"all {len(wanted)} are there, in versions that fit")
    for requirement, found in problems:
        yield Check("libraries", found, f"pip install '{requirement}'", is_fault=True)


def _unmet(text: str) -> tuple[str, str] | None:
    """Return an unmet requirement and what was found; None if it is met, or asked for elsewhere alone."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}) and "extra" not in text:
        return None
    short = f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return short, f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return short, f"{requirement.name} {version} does not fit {requirement.specifier}"
    return None


def _torch() -> Iterator[Check]:
    import torch

    product = float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
    build = f"{torch.__version__}, {'CUDA ' + torch.version.cuda if torch.version.cuda else 'for the CPU'}"
    is_right = product == 64.0**3
    yield Check("torch", build, "" if is_right else "it multiplies wrongly: install it again", not is_right)


def _export() -> Iterator[Check]:
    from edgestill.export.formats import FORMATS

    missing = {name: why for name, form in FORMATS.items() if (why := form.missing())}
    made = [name for name in FORMATS if name not in missing]
    is_broken = "fp32" in missing
    fix = f"mend it: {missing['fp32']}" if is_broken else ""
    yield Check("formats", f"can be made here: {', '.join(made)}", fix, is_broken)
    if missing:
        yield Check("formats", f"cannot: {', '.join(missing)}", "docs/howto/targets.md says what each needs")


def _processor() -> Iterator[Check]:
    from edgestill.export.device.facts import byte_products, load_average
    from edgestill.pipeline.runs.provenance import describe_machine

    machine, load = describe_machine(), load_average()
    cores = int(machine["cores"])
    sets = ", ".join(byte_products())
    busy = load is not None and load > cores
    fix = "wait until it is idle before you measure latencies" if busy else ""
    told = "" if load is None else f", load {load:.1f}"
    yield Check("processor", f"{machine['cpu']}, {cores} cores{told}; {sets}; {machine['torch_threads']} threads", fix)


def _memory() -> Iterator[Check]:
    from edgestill.pipeline.free_memory import available_bytes

    free = available_bytes()
    if free is not None:
        fix = "free some, or use small batches" if free < _LEAST_MEMORY else ""
        yield Check("memory", f"{free / 1e9:.1f} GB free", fix)


def _folders(runs: Path) -> Iterator[Check]:
    from edgestill.pipeline.cache import cache_folder

    yield _folder("runs", runs, "name another with --out", needed=True)
    yield _folder(
        "cache", cache_folder(), "set EDGESTILL_CACHE to another folder, or results are computed again", False
    )


def _folder(name: str, folder: Path, fix: str, needed: bool) -> Check:
    """Check for room and for leave to write, in the folder or in the one that it will be made in."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            pass
    except OSError as error:
        return Check(name, f"{folder.absolute()} cannot be written ({error.strerror})", fix, needed)
    return Check(name, f"{folder.absolute()}, {free / 1e9:.1f} GB free", "free some disk" if free < _LEAST_DISK else "")


def _gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        yield Check("gpu", f"{torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} in all")
    elif shutil.which("nvidia-smi"):
        yield Check("gpu", "there is one, and torch sees none", "install a torch built for CUDA, or a newer driver")
    else:
        yield Check("gpu", "none; everything runs on the CPU")


def _torchvision() -> Iterator[Check]:
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return
    try:
        importlib.import_module("torchvision")
        yield Check("torchvision", version)
        return
    except Exception as error:
        reason = first_line(error)
    from edgestill.pipeline.torchvision_compat import repair

    repair()
    try:
        importlib.import_module("torchvision")
        yield Check("torchvision", f"{version}, made for another torch build; edgestill repairs it for its own use")
    except Exception:
        yield Check(
            "torchvision", f"{version} fails ({reason})", "install the one of torch's own index, or leave it out"
        )


def _extras() -> Iterator[Check]:
    """Tell each extra, and the packages that it lacks."""
    found = metadata.metadata(_DISTRIBUTION)
    for extra in found.get_all("Provides-Extra") or ():
        if extra == "dev":
            continue
        wanted = [
            text for text in metadata.requires(_DISTRIBUTION) or () if re.search(rf"extra == ['\"]{extra}['\"]", text)
        ]
        problems = [problem[1] for text in wanted if (problem := _unmet(text.split(";")[0]))]
        if problems:
            yield Check("extra", f"{extra}: {', '.join(problems)}", f"pip install 'edgestill[{extra}]' if you want it")
        else:
            yield Check("extra", f"{extra}: installed")


def _prefect() -> Iterator[Check]:
    from edgestill.flows.prefect.launch import require_server

    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    yield _folder("prefect", home, "set PREFECT_HOME to another folder; --no-prefect needs none", False)
    url = os.environ.get("PREFECT_API_URL")
    if url:
        try:
            require_server(url)
            yield Check("prefect", f"a server answers at {url}")
        except EdgestillError as error:
            yield Check("prefect", first_line(error), "unset PREFECT_API_URL, or start one with `edgestill ui`")


def _terminal() -> Iterator[Check]:
    encoding = getattr(sys.stdout, "encoding", None) or "none"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    fix = "" if is_utf8 else "set PYTHONIOENCODING=utf-8; until then characters are spelt plainer"
    width = shutil.get_terminal_size().columns
    kind = f"a terminal of {width} columns" if sys.stderr.isatty() else "no terminal: progress is shown as plain lines"
    yield Check("terminal", f"{kind}, {encoding}, locale {'.'.join(part or '-' for part in locale.getlocale())}", fix)


def _plugins() -> Iterator[Check]:
    from edgestill.distill.methods import METHODS
    from edgestill.pipeline.data.datasets import DATASETS
    from edgestill.pipeline.plugins import cautions, plugin_distributions
    from edgestill.pipeline.teachers import TEACHERS
    from edgestill.search.scorers import SCORERS
    from edgestill.search.spaces import SPACES
    from edgestill.search.strategies import STRATEGIES

    for table in (METHODS, DATASETS, TEACHERS, SCORERS, SPACES, STRATEGIES):
        len(table)  # reads its plug-ins
    yield Check("plug-ins", ", ".join(plugin_distributions()) or "none")
    for caution in cautions():
        yield Check("plug-ins", caution, "mend or remove that package")
