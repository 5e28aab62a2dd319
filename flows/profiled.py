"""Latencies of a space's students, read from profiles measured on a device."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgestill.export.device.document import ProfileDocument, Result, read_profile
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.search.latency.model import FEWEST_SAMPLES
from edgestill.search.space import Architecture, SearchSpace

_FP32 = "fp32"


def are_profiles(paths: Sequence[Path]) -> bool:
    """True if the paths are profiles or folders of them, False if one table.

    Raises:
        ConfigError: profiles and tables are mixed, or there are several tables.
    """
    profiles = [path for path in paths if path.is_dir() or path.suffix == ".json"]
    if len(profiles) < len(paths) and len(paths) > 1:
        raise ConfigError(["--from-csv takes one table, or any number of profiles (.json, or folders of them)"])
    return bool(profiles)


def latencies_of_profiles(
    paths: Sequence[Path], space: SearchSpace, space_name: str, batch: int, threads: int
) -> tuple[list[tuple[Architecture, float]], dict[str, Any]]:
    """Read the fp32 file's median latency at a batch and a number of threads from each profile.

    Returns:
        The latencies in ms, a student's repeats joined by their median, and facts on the device for the fitted model.

    Raises:
        DataError: every problem found, with the files' names; different devices or runtimes are one.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    problems: list[str] = []
    students: dict[str, Architecture] = {}
    found: defaultdict[str, list[float]] = defaultdict(list)
    devices: dict[tuple[str, str, int, str], Path] = {}
    for file in files:
        try:
            profile = read_profile(file)
            student = _student(profile, space, space_name)
            found[student.key].append(_median(profile, batch, threads))
            students.setdefault(student.key, student)
        except ValueError as error:
            problems.append(f"{file}: {error}" if str(file) not in str(error) else str(error))
            continue
        key = profile.title, str(profile.device.cpu), profile.device.cores, profile.runtime.name
        devices.setdefault(key, file)
    if len(devices) > 1:
        known = "; ".join(f"{path.name}: {key[0]}, {key[2]} cores, {key[3]}" for key, path in devices.items())
        problems.append(f"a model is of one device and one runtime, and these are of {len(devices)}: {known}")
    if problems:
        raise DataError(*problems[:20])
    if len(found) < FEWEST_SAMPLES:
        raise DataError(f"the {len(files)} profiles hold {len(found)} architectures; {FEWEST_SAMPLES} is the least")
    ((title, cpu, cores, runtime),) = devices
    facts = {"device": title, "runtime": runtime, "threads": threads, "machine": {"cpu": cpu, "cores": cores}}
    return [(students[key], statistics.median(values)) for key, values in found.items()], facts


def _student(profile: ProfileDocument, space: SearchSpace, space_name: str) -> Architecture:
    name = profile.architecture
    if name is None:
        raise DataError("it names no architecture; profile the bundle rather than its file")
    if not name.startswith(f"{space_name}:"):
        raise DataError(f"it is of {name[:80]!r}, not of space {space_name!r}")
    return space.read(name.removeprefix(f"{space_name}:"))


def _median(profile: ProfileDocument, batch: int, threads: int) -> float:
    against = {comparison.against for comparison in profile.comparisons}
    own = [name for name, model in profile.models.items() if model.format == _FP32]
    if not own:
        others = ", ".join(sorted(profile.models.keys() - against))
        raise DataError(f"it has no {_FP32} model, only {others}; profile the bundle with --model {_FP32}")
    results = [result for result in profile.results if result.model == own[0]]
    for result in results:
        median = result.summary.percentiles.get("p50_ms")
        if (result.batch, result.threads) == (batch, threads) and median is not None:
            return float(f"{median:.6g}")
    raise DataError(f"it has no median at batch {batch}, threads {threads}; it has {', '.join(map(_where, results))}")


def _where(result: Result) -> str:
    return f"batch {result.batch}, threads {result.threads}"
