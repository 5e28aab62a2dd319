"""What every stage is given, and the networks that stages share by way of the run directory."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.narrow import Widths, narrow
from distill.recipe import make_recipe
from distill.result import PruneResult
from flows.config import RunConfig
from pipeline.checkpoint import load_weights
from pipeline.data import Splits, load_splits
from pipeline.device import Compute, select_device
from pipeline.errors import DataError
from pipeline.frozen import Frozen, derive_seed
from pipeline.rundir import RunDir
from pipeline.task import Task
from pipeline.teacher import load_teacher
from search.spaces import make_space

WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer.json"
CHECKPOINT = ".checkpoint.pt"  # hidden files are no part of a stage's result


class DataResult(Frozen):
    """What the data stage found."""

    task: Task
    sizes: dict[str, int]
    digests: dict[str, str]  # of each split, its contents included


@dataclass(frozen=True)
class Stage:
    """What every stage function is given."""

    run: RunDir
    config: RunConfig
    tick: Callable[[int, int, str], None]
    say: Callable[[str], None] = lambda line: None
    inputs: str = ""  # digest of what the stage is made from, which its journals and checkpoints are bound to

    @property
    def device(self) -> torch.device:
        return select_device(self.config.device)

    @property
    def compute(self) -> Compute:
        return Compute(self.config.device.precision, self.config.device.gpus)

    def splits(self) -> Splits:
        """The splits, text by the tokenizer that the data stage kept.

        Raises:
            DataError: they are no longer what the data stage found.
            RunDirError: a file of the data stage is not what it wrote.
        """
        # Read first: it is what finds a tokenizer damaged.
        found = self.run.read("data", DataResult) if "data" in self.run.manifest.stages else None
        splits = load_splits(self.config.read_data, self.config.seed, self.tokenizer())
        if found is not None:
            _require_same(found.digests, splits.digests, self.config.data)
        return splits

    def tokenizer(self) -> str | None:
        """Of a text task, the JSON of the run's tokenizer."""
        path = self.run.path("data", TOKENIZER)
        return path.read_text(encoding="utf-8") if path.exists() else None

    def seed(self, *parts: object) -> int:
        return derive_seed(self.config.seed, *map(str, parts))


def _require_same(recorded: Mapping[str, str], found: Mapping[str, str], data: Any) -> None:
    changed = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
    if changed:
        where = getattr(data, "path", f"data set {data.name!r}")
        raise DataError(
            f"{where} is not what this run was started with: its {', '.join(changed)} "
            f"{'split has' if len(changed) == 1 else 'splits have'} other examples or labels; put the data back, or "
            "start a new run with `edgestill run`"
        )


def trained_teacher(stage: Stage, task: Task) -> nn.Module:
    return load_teacher(stage.config.teacher, task, stage.run.root / "teacher" / WEIGHTS)


def fresh_student(stage: Stage, architecture: str, task: Task) -> nn.Module:
    """A fresh student; the same weights for the tournament, every trial and the distillation."""
    space = make_space(stage.config.search.space)
    with drawn_from(stage.seed("student", "weights")):
        return space.build(space.parse(architecture), task)


def distilled_student(stage: Stage, architecture: str, task: Task) -> nn.Module:
    """The student as it ships, distilled and, where configured, pruned, back from its weights file."""
    return shipped_student(stage, architecture, task)[1]


def shipped_student(stage: Stage, architecture: str, task: Task) -> tuple[nn.Module, nn.Module]:
    """The student that methods train, and the same as it ships, which shares its layers but for a method's head."""
    pruned = stage.run.read("prune", PruneResult) if stage.config.prune.enabled else None
    if pruned is None or pruned.refused is not None:
        return unpruned_student(stage, architecture, task)
    return narrowed_student(stage, architecture, task, pruned.widths, stage.run.root / "prune" / WEIGHTS)


def unpruned_student(stage: Stage, architecture: str, task: Task) -> tuple[nn.Module, nn.Module]:
    """The distilled student, and as it would ship without pruning."""
    return narrowed_student(stage, architecture, task, {}, stage.run.root / "distill" / WEIGHTS)


def narrowed_student(
    stage: Stage, architecture: str, task: Task, widths: Widths, weights: Path
) -> tuple[nn.Module, nn.Module]:
    """A student with layers of these widths, and as it ships, with the weights of a file."""
    student = narrow(fresh_student(stage, architecture, task), widths)
    shipped = make_recipe(stage.config.distill.methods).deployable(student)
    load_weights(shipped, weights)
    return student, shipped


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw what PyTorch draws inside from this seed, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def saver(stage: Stage, name: str, file: str = CHECKPOINT) -> Callable[[dict[str, Any]], None]:
    """Keeps a training's state after each epoch, for `saved` to find."""

    return lambda state: stage.run.save(name, file, state, stage.inputs)


def saved(stage: Stage, name: str, file: str = CHECKPOINT) -> dict[str, Any] | None:
    """The state that a training which was interrupted goes on from."""
    return stage.run.saved(name, file, stage.inputs)
