"""`edgestill calibrate`: measure students of a space on this machine, or read their latencies, and fit a model."""

import csv
import functools
import io
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.export.onnx.sessions import runtime_name
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.measure import Device
from edgestill.flows.config import load_config
from edgestill.flows.latency import export_student, median_ms, medians_of, profiled_on
from edgestill.flows.profiled import are_profiles, latencies_of_profiles
from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.loading import load_whole_train
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.foreign import MAX_TABLE_BYTES, read_text_bounded
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.search.latency.model import FEWEST_SAMPLES, LARGE_ERROR, LatencyModel, fit_latency_model
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space

Samples = list[tuple[Architecture, float]]

_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Inputs:
    """Inputs of the students: an npz file's images, or a shape and a number of classes."""

    data: Path | None
    shape: str
    classes: int

    def task(self) -> Task:
        """The task with these inputs.

        Raises:
            ConfigError, DataError: the shape or the file cannot be used.
        """
        if self.data is not None:
            return load_whole_train(NpzConfig(path=self.data))[0]
        try:
            channels, height, width = (int(side) for side in self.shape.split("x"))
            if min(channels, height, width) < 1:
                raise ValueError
        except ValueError:
            raise ConfigError(
                [f"--input-shape {self.shape}: expected CHANNELSxHEIGHTxWIDTH, such as 3x32x32"]
            ) from None
        labels = tuple(map(str, range(self.classes)))
        return Task(
            labels=labels, input_shape=(channels, height, width), mean=(0.5,) * channels, std=(0.25,) * channels
        )


def fit_device(
    space_name: str,
    options: Sequence[str],
    inputs: Inputs,
    out: Path,
    *,
    samples: int,
    settings: ProbeSettings,
    seed: int,
    from_csv: Sequence[Path],
    column: str | None,
    device: str | None,
    save_csv: Path | None,
    say: Callable[[str], None],
    target: TargetConfig | None = None,
) -> LatencyModel:
    """Fit and write a latency model.

    Args:
        target: the device to measure on; None: this machine.
        options: of the space, as `key=value`.
        from_csv: latencies measured elsewhere, in a table or in profiles; nothing is measured here then.
        save_csv: where to keep this machine's measurements, in the form of `from_csv`.

    Raises:
        ConfigError, DataError: with every problem found.
    """
    problems = [
        f"no folder {path.parent} to write {path.name} to"
        for path in (out, save_csv)
        if path is not None and not path.parent.is_dir()
    ]
    if from_csv and save_csv is not None:
        problems.append("--save-csv keeps measurements and --from-csv makes none; give one of them")
    if target is not None and (from_csv or target.is_here or target.is_carried):
        problems.append("--target measures on a device that can be asked; leave it out, or leave --from-csv out")
    if not from_csv and samples < FEWEST_SAMPLES:
        problems.append(f"--samples {samples}: {FEWEST_SAMPLES} is the least that a model can be fitted to")
    if problems:
        raise ConfigError(problems)
    config = load_config(
        settings=[f"search.space.name={space_name}", *(f"search.space.{option}" for option in options)],
        check_files=False,
    ).search.space
    space, task = make_space(config), inputs.task()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    found: dict[str, Any] = {"batch": settings.batch}
    if from_csv and are_profiles(from_csv):
        measured, facts = latencies_of_profiles(from_csv, space, config.name, settings.batch, settings.threads)
        found |= facts | ({} if device is None else {"device": device})
    elif from_csv:
        (table,) = from_csv
        measured = read_latencies(table, space, column)
        found["device"] = device or table.stem
    elif target is not None:
        measured, facts = _measured_on(target, space, task, samples, settings, seed, say)
        found |= facts | ({} if device is None else {"device": device})
    else:
        measured = measure_students(space, task, samples, settings, seed, say)
        machine = describe_machine()
        found |= {"device": device or str(machine["cpu"]), "machine": machine}
        found |= {"runtime": runtime_name(), "threads": settings.threads}
    if save_csv is not None:
        write_atomic(save_csv, latencies_csv(space, measured).encode())
    say(f"fitting to {len(measured)} students")
    model = fit_latency_model(space, config.model_dump(mode="json"), task, measured, **found)
    write_atomic(out, model.to_json().encode())
    return model


def verdict(model: LatencyModel) -> list[str]:
    """Lines on the model's error for left-out students, with a warning if it is large."""
    found = model.cross_validation
    lines = [
        f"{model.n} students of {model.space} on {model.device}; left-out ones were predicted within "
        f"{found.median_error:.1%} (median), {found.p90_error:.1%} (nine in ten), Kendall tau {found.kendall_tau:.2f}"
    ]
    if found.median_error > LARGE_ERROR:
        lines.append(
            f"warning: a median error above {LARGE_ERROR:.0%} is much to choose by; measure more students, or each for "
            "longer on an idle machine"
        )
    return lines


def measure_students(
    space: SearchSpace, task: Task, samples: int, settings: ProbeSettings, seed: int, say: Callable[[str], None]
) -> Samples:
    """Measure median latencies of different random students; one whose export fails is reported and left out."""
    students, files = _exported(space, task, samples, seed, say)
    say(f"timing {len(files)} files in turns")
    timings = time_files(files, settings, seed)
    return [(students[text], median_ms(timings[text])) for text in files]


def _exported(
    space: SearchSpace, task: Task, samples: int, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, Architecture], dict[str, bytes]]:
    """Export different random students, by their string forms."""
    students: dict[str, Architecture] = {}
    files: dict[str, bytes] = {}
    chosen = space.sample_different(samples, random.Random(derive_seed(seed, "calibrate")))
    with Workshop(1) as workshop:
        exports = workshop.each(functools.partial(export_student, space, task=task, opset=20), chosen)
        for architecture, outcome in zip(chosen, exports, strict=True):
            text = space.format(architecture)
            if "failure" in outcome:
                say(f"left out: {text}: {outcome['failure']}")
                continue
            students[text], files[text] = architecture, outcome["value"]
            if len(files) % 10 == 0:
                say(f"exported {len(files)} of {samples}")
    return students, files


_AT_ONCE = 10  # files in one measurement on a target: a broken link costs no more than these


def _measured_on(
    target: TargetConfig, space: SearchSpace, task: Task, samples: int, settings: ProbeSettings, seed: int,
    say: Callable[[str], None],
) -> tuple[Samples, dict[str, Any]]:  # fmt: skip
    """Measure students on a target; return their latencies, and facts on the device for the fitted model."""
    students, files = _exported(space, task, samples, seed, say)
    settings, texts, device = settings._replace(threads=target.threads), list(files), Device(target, say)
    random.Random(seed).shuffle(texts)  # a drift of the device falls on all sizes alike
    medians: dict[str, float] = {}
    facts: dict[str, Any] = {}
    for begin in range(0, len(texts), _AT_ONCE):
        some = texts[begin : begin + _AT_ONCE]
        say(f"measuring {begin + 1} to {begin + len(some)} of {len(texts)} on {target.name}")
        found = profiled_on(device, {f"s{k}": files[text] for k, text in enumerate(some)}, settings, 20)
        medians |= {some[int(name[1:])]: median for name, median in medians_of(found).items()}
        facts = {"device": found.title, "runtime": found.runtime.name, "threads": target.threads}
        facts["machine"] = {"cpu": str(found.device.cpu), "cores": found.device.cores}
    return [(students[text], medians[text]) for text in files], facts


def read_latencies(path: Path, space: SearchSpace, column: str | None = None) -> Samples:
    """Read lines `architecture,latency in ms`, with or without a header; a repeated architecture gets its median.

    Args:
        column: name of the latencies' column, if the file has several.

    Raises:
        DataError: the file cannot be read, or has wrong lines; lists them with their numbers.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text_bounded(path, MAX_TABLE_BYTES), newline="")))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from None
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    place, lines = _column(path, lines, column)
    problems: list[str] = []
    students: dict[str, Architecture] = {}
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number, row in lines:
        try:
            student = space.read(row[0])
            found[student.key].append(_milliseconds(row, place))
            students.setdefault(student.key, student)
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more lines"] if len(problems) > _MOST_PROBLEMS else []
        raise DataError(*problems[:_MOST_PROBLEMS], *more)
    if len(found) < FEWEST_SAMPLES:
        raise DataError(f"{path} has latencies of {len(found)} architectures; {FEWEST_SAMPLES} is the least")
    return [(students[key], statistics.median(values)) for key, values in found.items()]


def latencies_csv(space: SearchSpace, samples: Samples) -> str:
    """Samples as CSV text, in the form read by `read_latencies`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["architecture", "latency_ms"])
    writer.writerows([space.format(architecture), repr(latency)] for architecture, latency in samples)
    return out.getvalue()


def _column(
    path: Path, lines: list[tuple[int, list[str]]], name: str | None
) -> tuple[int, list[tuple[int, list[str]]]]:
    """Index of the latencies' column, and the lines below the header."""
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    has_header = len(header) > 1 and not any(_is_number(cell) for cell in header[1:])
    if name is not None:
        if not has_header or name not in header[1:]:
            known = ", ".join(header[1:]) if has_header else "none, for it has no header"
            raise DataError(f"{path} has no column {name!r}; columns of latencies: {known}")
        return header.index(name), lines[1:]
    if has_header and len(header) > 2:
        raise DataError(f"{path} has several columns of latencies; say which by --column: {', '.join(header[1:])}")
    return 1, lines[has_header:]


def _milliseconds(row: list[str], place: int) -> float:
    if len(row) <= place or (place == 1 and len(row) > 2 and not _is_number(row[1])):
        raise ValueError("expected an architecture, a comma and a latency in ms")
    if not _is_number(row[place]) or not 0 < float(row[place]) < math.inf:
        raise ValueError(f"latency {row[place].strip()!r} is not a number of milliseconds above 0")
    return float(row[place])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
