"""What benchmarks of methods share: what they run on (files of benchmarks/tasks/), recipes, differences."""

import importlib
import math
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import scipy.stats
from torch import nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.runs.yaml_text import read_yaml

TASKS = Path(__file__).parents[1] / "tasks"


@dataclass(frozen=True)
class Bench:
    """A teacher, the data to distil it on, and test sets; methods differ in nothing else."""

    splits: Splits
    teacher: nn.Module  # trained
    make_student: Callable[[int], nn.Module]  # fresh weights from a seed
    tests: dict[str, ImageSplit]  # by name; the first is the one that the data is from
    training: StudentTrainingConfig  # the same epochs for every method


Make = Callable[[int, Path, Path], Bench]  # (seed, data folder, folder to keep trained teachers in) -> Bench


def task_names() -> list[str]:
    """Names of all tasks: each file's own, and those of its variants behind it (`mnist_shift`, `mnist_shift_cnn`)."""
    return sorted(stem + suffix for stem in _files() for suffix in _variants(stem))


def load_task(name: str) -> Make:
    """Return the function that makes a task."""
    (stem,) = (stem for stem in _files() if name.startswith(stem) and name.removeprefix(stem) in _variants(stem))
    return _variants(stem)[name.removeprefix(stem)]


def _files() -> list[str]:
    return [path.stem for path in TASKS.glob("*.py") if not path.stem.startswith("_")]


def _variants(stem: str) -> dict[str, Make]:
    """Suffix of the name -> function; a file with one task has `make` alone."""
    module = importlib.import_module(f"tasks.{stem}")
    return cast("dict[str, Make]", getattr(module, "VARIANTS", None) or {"": module.make})


def parse_recipe(label: str) -> list[dict[str, Any]]:
    """`hard+lelp(directions=kmeans)` as configurations of methods."""
    methods = []
    for part in re.split(r"\+(?![^(]*\))", label):
        found = re.fullmatch(r"(\w+)(?:\((.*)\))?", part.strip())
        if not found:
            raise SystemExit(f"{part!r} is no method; expected name or name(key=value, …)")
        settings = (item.partition("=") for item in (found[2] or "").split(",") if item.strip())
        given: dict[str, Any] = {"name": found[1]}
        methods.append(given | {key.strip(): read_yaml(value, key.strip()) for key, _, value in settings})
    return methods


def paired_difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Mean of one less other, seed by seed, and half of Student's 95 % interval; NaN for a single seed."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    n = len(differences)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * spread(differences) / math.sqrt(n) if n > 1 else math.nan
    return statistics.fmean(differences), half


def shown_difference(one: Sequence[float], other: Sequence[float], digits: int = 2) -> str:
    mean, half = paired_difference(one, other)
    return f"{mean:+.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def verdict(low: float, high: float) -> str:
    """Say what the interval of a difference allows to say."""
    return "wins" if low > 0 else "loses" if high < 0 else "not separable"


def spread(values: Sequence[float]) -> float:
    """Their standard deviation; 0 of a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def shown_command() -> str:
    """How this benchmark was called, without this machine's folders."""
    words = list(sys.argv[1:])
    for option, name in (("--data", "DATA"), ("--out", "OUT")):
        if option in words:
            words[words.index(option) + 1] = name
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
