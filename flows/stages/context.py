"""Surroundings of a stage's work: the run, its configuration, its data, its device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgestill.distill.drivers import DRIVERS, Driver
from edgestill.export.gate import Limits
from edgestill.flows.config.model import RunConfig
from edgestill.flows.first_weights import begin_from_run, is_run, require_start, source_of, start_digests
from edgestill.flows.stages.results import DataResult, Results
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.rows import showing
from edgestill.pipeline.data.splits import Batch, Splits, draw_batch
from edgestill.pipeline.device import Compute, select_device
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.runs.sealed import Journal
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import build_teacher, load_teacher, make_teacher
from edgestill.pipeline.teachers.teacher import DRAWN, PARTS, SCORED
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.result import Candidate
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import make_space

WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer.json"
CHECKPOINT = ".checkpoint.pt"  # hidden files are no part of a stage's result
DRIVEN, LASTING = "distill", "labels"  # stage of the driver; folder of what stays when the stage is done anew


@dataclass(frozen=True)
class StageContext:
    """Surroundings of a stage's work."""

    run: RunDir
    config: RunConfig
    tick: Callable[[int, int, str], None]
    say: Callable[[str], None] = lambda line: None
    epoch_done: Callable[[EpochRecord], None] = lambda record: None
    inputs: str = ""  # digest of the stage's inputs; its journals and checkpoints are bound to it
    cautions: list[str] = field(default_factory=list)  # things it did without, a sentence each
    loaded: list[Splits] = field(default_factory=list)  # the run's splits, once they are loaded

    def settled(self, results: Results) -> "StageContext":
        """Return the context with the configuration as the finished stages settled it."""
        return replace(self, config=results.settled(self.config))

    @property
    def device(self) -> torch.device:
        return select_device(self.config.device)

    @property
    def compute(self) -> Compute:
        device = self.config.device
        return Compute(device.precision, device.gpus, device.compile, self._tell, device.processes)

    def _tell(self, sentence: str) -> None:
        if sentence not in self.cautions:
            self.cautions.append(sentence)

    @property
    def space(self) -> SearchSpace:
        return make_space(self.config.search.space)

    def splits(self) -> Splits:
        """Return the splits as the stages see them: a driver may hide labels from all but itself."""
        return self.driver().at_start(self.whole_splits())

    def driver(self) -> Driver:
        """Make the configured driver of the distillation, with its logs in the run."""
        config = self.config.distill.driver
        return DRIVERS[config.name](config, self._log, self.seed("driver"))

    def _log(self, name: str, *, lasting: bool = False) -> Journal:
        if lasting:
            return self.run.journal(LASTING, f"{name}.jsonl")
        done = self.run.manifest.stages.get(DRIVEN)
        return self.run.journal(DRIVEN, f"{name}.jsonl", self.inputs if done is None else done.inputs)

    def whole_splits(self) -> Splits:
        """Load the splits, once a run; text goes through the tokenizer kept by the data stage.

        Raises:
            DataError: they have changed since the data stage.
            RunDirError: a file of the data stage was altered.
        """
        if not self.loaded:
            self.loaded.append(self._load())
        return self.loaded[0]

    def looked_at_splits(self) -> Splits:
        """Load the splits as `splits` does, and look at every example."""
        self.loaded[:] = [self._load(looking=True)]
        return self.splits()

    def _load(self, looking: bool = False) -> Splits:
        # Read first: this detects a damaged tokenizer.
        found = self.run.read("data", DataResult) if "data" in self.run.manifest.stages else None
        with showing(self.tick):
            splits = load_splits(self.config.read_data, self.config.seed, self.tokenizer(), looking)
        if found is not None:
            _require_same(found.digests, splits.digests, self.config.data)
        return splits

    def tokenizer(self) -> str | None:
        """JSON of the run's tokenizer; None if the task has no text."""
        path = self.run.path("data", TOKENIZER)
        return path.read_text(encoding="utf-8") if path.exists() else None

    def seed(self, *parts: object) -> int:
        return derive_seed(self.config.seed, *map(str, parts))

    def teacher(self, task: Task) -> nn.Module:
        """Load the trained teacher of the run."""
        with drawn_from(self.seed("teacher", "weights")):
            network = load_teacher(self.config.teacher, task, self.run.root / "teacher" / WEIGHTS)
        make_teacher(self.config.teacher).meet(network, self.whole_splits().parts)
        return network

    def teacher_to_score_by(self, task: Task) -> nn.Module | None:
        """Return the teacher beside which candidates are scored; None for one that lacks what scorers read of it."""
        if not self.config.search.uses_trained_teacher:
            return self.teacher_to_draw(task)
        network = self.teacher(task)
        return network if getattr(network, "gives", PARTS) >= SCORED else None

    def teacher_to_draw(self, task: Task) -> nn.Module | None:
        """Build the teacher for a scorer that draws its weights; None for a black box, which has none."""
        network = build_teacher(self.config.teacher, task)
        return network if getattr(network, "gives", PARTS) >= DRAWN else None

    def architecture_of(self, candidate: Candidate) -> Architecture:
        """Read a candidate's architecture; results keep its string form, and code passes on the value."""
        return self.space.parse(candidate.architecture)

    def structure(self, architecture: Architecture, task: Task, draw: int = 0) -> nn.Module:
        """Build a student with random weights, for whoever needs its structure or puts other weights into it."""
        with drawn_from(self.seed("student", "weights", *_further(draw))):
            return self.space.build(architecture, task)

    def fresh_student(self, architecture: Architecture, task: Task, draw: int = 0) -> nn.Module:
        """Build a student with its first weights, as `distill.start` says.

        They are the same for the tournament, every trial and the distillation. A `draw` above 0 gives others.
        """
        start, student = self.config.distill.start, self.structure(architecture, task, draw)
        with drawn_from(self.seed("student", "start", *_further(draw))):
            if start == "pretrained":
                self.space.pretrain(student, architecture, task)
            elif start == "teacher":
                self.space.begin_from_teacher(student, architecture, task, self.teacher(task))
            elif is_run(start):
                begin_from_run(student, architecture, task, self.space, source_of(start, self.run.root.parent))
        return student

    def require_start(self, task: Task) -> None:
        """Refuse a start that students cannot have, before anything is trained.

        Raises:
            UserError: it says why.
        """
        require_start(self.config.distill.start, self.run.root.parent, self.space, task)

    @property
    def start_digests(self) -> tuple[str, ...]:
        """Digests of the files that students begin from, which are inputs of every stage that trains one."""
        return start_digests(self.config.distill.start, self.run.root.parent, self.space)

    def scoring_batch(self, splits: Splits) -> Batch:
        """Draw the training images to score candidates on, augmented if so configured."""
        config, seed, size = self.config.search, self.seed("search"), self.config.search.batch_size
        if self.config.distill.driver.hides:
            size = min(size, len(splits.train.labelled()))  # the user asked for few labels
        batch = draw_batch(splits.train, size, seed)
        if not config.batch_augmented:
            return batch
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmented"))
        return Augmentation(splits.augment.without_mixing)(batch, 0, generator)

    def file_examples(self) -> np.ndarray:
        """Up to 64 validation examples, contiguous as on a device: a runtime would copy another layout each time."""
        validation = self.splits().validation
        some = validation.batch(torch.arange(min(64, len(validation))))
        return np.ascontiguousarray(some.inputs.numpy())

    @property
    def limits(self) -> Limits:
        """The budget's limits on files; on their latency only if they are measured where they are to run."""
        return self.limits_on(self.config.targets[0].name if self.config.targets else "here")

    def limits_on(self, target: str) -> Limits:
        """The limits on files on a target; that on latency only where it is for this target."""
        search = self.config.search
        here = search.latency.source == "measured" or bool(self.config.targets)
        is_for = here and search.latency.target in (None, target)
        limit = search.budget.max_latency_ms if is_for else None
        return Limits(max_size_bytes=search.budget.max_size_bytes, max_latency_ms=limit)

    def saver(self, stage: str, file: str = CHECKPOINT) -> Callable[[dict[str, Any]], None]:
        """Return a function to save a training's state after each epoch, for `saved` to find."""
        return lambda state: self.run.save(stage, file, state, self.inputs)

    def saved(self, stage: str, file: str = CHECKPOINT) -> dict[str, Any] | None:
        """Return the saved state for an interrupted training to go on from; None if there is none."""
        return self.run.saved(stage, file, self.inputs)


def _further(draw: int) -> tuple[int, ...]:
    """The part of a seed that tells a further draw from the first one, whose seed has no such part."""
    return (draw,) if draw else ()


def _require_same(recorded: Mapping[str, str], found: Mapping[str, str], data: Any) -> None:
    changed = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
    if changed:
        where = getattr(data, "path", f"data set {data.name!r}")
        raise DataError(
            f"{where} is not what this run was started with: its {', '.join(changed)} "
            f"{'split has' if len(changed) == 1 else 'splits have'} other examples or labels; put the data back, or "
            "start a new run with `edgestill run`"
        )
