"""The input of every stage, and the networks shared by stages through the run directory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgestill.distill.compression.narrow import Widths, narrow
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import PruneResult
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.device import Compute, select_device
from edgestill.pipeline.errors import DataError, RunDirError
from edgestill.pipeline.frozen import Frozen, derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import load_weights, read_state
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import load_teacher
from edgestill.search.spaces import make_space

WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer.json"
METHODS = "methods.pt"  # state of the recipe's methods at the student's best epoch
CHECKPOINT = ".checkpoint.pt"  # hidden files are no part of a stage's result


class DataResult(Frozen):
    """Result of the data stage."""

    task: Task
    sizes: dict[str, int]
    digests: dict[str, str]  # of each split, its contents included


@dataclass(frozen=True)
class Stage:
    """Input of every stage function."""

    run: RunDir
    config: RunConfig
    tick: Callable[[int, int, str], None]
    say: Callable[[str], None] = lambda line: None
    inputs: str = ""  # digest of the stage's inputs; its journals and checkpoints are bound to it
    cautions: list[str] = field(default_factory=list)  # things it did without, a sentence each

    @property
    def device(self) -> torch.device:
        return select_device(self.config.device)

    @property
    def compute(self) -> Compute:
        return Compute(self.config.device.precision, self.config.device.gpus)

    def splits(self) -> Splits:
        """Load the splits; text goes through the tokenizer kept by the data stage.

        Raises:
            DataError: they have changed since the data stage.
            RunDirError: a file of the data stage was altered.
        """
        # Read first: this detects a damaged tokenizer.
        found = self.run.read("data", DataResult) if "data" in self.run.manifest.stages else None
        splits = load_splits(self.config.read_data, self.config.seed, self.tokenizer())
        if found is not None:
            _require_same(found.digests, splits.digests, self.config.data)
        return splits

    def tokenizer(self) -> str | None:
        """JSON of the run's tokenizer; None if the task has no text."""
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
    with drawn_from(stage.seed("teacher", "weights")):
        return load_teacher(stage.config.teacher, task, stage.run.root / "teacher" / WEIGHTS)


def fresh_student(stage: Stage, architecture: str, task: Task) -> nn.Module:
    """Build a fresh student; its weights are the same for the tournament, every trial and the distillation."""
    space = make_space(stage.config.search.space)
    with drawn_from(stage.seed("student", "weights")):
        return space.build(space.parse(architecture), task)


def distilled_student(stage: Stage, architecture: str, task: Task) -> nn.Module:
    """The student's shipped form, distilled and, if so configured, pruned, with weights from its file."""
    return shipped_student(stage, architecture, task)[1]


def shipped_student(stage: Stage, architecture: str, task: Task) -> tuple[nn.Module, nn.Module]:
    """The student in its trained and in its shipped form; they share all layers but a method's head."""
    pruned = _pruned(stage)
    if pruned is None:
        return unpruned_student(stage, architecture, task)
    return narrowed_student(stage, architecture, task, pruned.widths, stage.run.root / "prune" / WEIGHTS)


def unpruned_student(stage: Stage, architecture: str, task: Task) -> tuple[nn.Module, nn.Module]:
    """The distilled student before pruning, in its trained and in its shipped form."""
    return narrowed_student(stage, architecture, task, {}, stage.run.root / "distill" / WEIGHTS)


def state_that_shipped(stage: Stage) -> dict[str, Any]:
    """State of the recipe's methods from the training of `shipped_student`."""
    return method_state(stage, "distill" if _pruned(stage) is None else "prune")


def method_state(stage: Stage, name: str) -> dict[str, Any]:
    """State of the recipe's methods as left by the stage `name`.

    Raises:
        RunDirError: an earlier version ran the stage and did not keep the state.
    """
    path = stage.run.path(name, METHODS)
    if path.exists():
        return read_state(path.read_bytes())
    recipe = make_recipe(stage.config.distill.methods)
    if recipe.keeps_state:
        raise RunDirError(
            f"{path} is missing: an earlier version of edgestill made the {name} stage and did not keep what "
            f"{' and '.join(recipe.keeps_state)} had prepared for the student; start a new run"
        )
    return recipe.state_dict()


def _pruned(stage: Stage) -> PruneResult | None:
    """Result of pruning; None if it is off or could not be done."""
    pruned = stage.run.read("prune", PruneResult) if stage.config.prune.enabled else None
    return None if pruned is None or pruned.refused is not None else pruned


def narrowed_student(
    stage: Stage, architecture: str, task: Task, widths: Widths, weights: Path
) -> tuple[nn.Module, nn.Module]:
    """A student with layers of these widths, in its trained and in its shipped form, with weights from a file."""
    student = narrow(fresh_student(stage, architecture, task), widths)
    shipped = make_recipe(stage.config.distill.methods).deployable(student)
    load_weights(shipped, weights)
    return student, shipped


def saver(stage: Stage, name: str, file: str = CHECKPOINT) -> Callable[[dict[str, Any]], None]:
    """Return a function to save a training's state after each epoch, for `saved` to find."""

    return lambda state: stage.run.save(name, file, state, stage.inputs)


def saved(stage: Stage, name: str, file: str = CHECKPOINT) -> dict[str, Any] | None:
    """The saved state for an interrupted training to go on from; None if there is none."""
    return stage.run.saved(name, file, stage.inputs)
