"""Results of tuning, distillation and pruning, for later stages."""

from typing import Literal

from edgestill.distill.methods.base import Exhibit
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord


class TrialRecord(Frozen):
    number: int
    state: str  # COMPLETE, PRUNED or FAIL
    params: dict[str, float]
    value: float | None  # best metric on validation
    epochs: int
    reason: str | None = None  # of a failure


class TuneResult(Frozen):
    enabled: bool
    best: dict[str, float]  # dotted name -> value; empty if tuning is off
    best_value: float | None
    best_trial: int | None
    trials: tuple[TrialRecord, ...]


class DistillResult(Frozen):
    architecture: str
    methods: tuple[dict[str, object], ...]  # as used, tuned values included
    learning_rate: float
    weight_decay: float
    teacher_cached: bool
    validation: Metrics
    cost: Cost
    best_epoch: int
    stopped_early: bool
    curve: tuple[EpochRecord, ...]
    measures: dict[str, float] = {}  # the methods' own figures, such as `kd_aif.effective_sample_size`
    exhibits: tuple[Exhibit, ...] = ()


class PruneResult(Frozen):
    """Result of pruning the distilled student and fine-tuning the pruned one; metrics are on validation."""

    method: Literal["taylor", "l1", "fpgm"]
    keep: float  # wanted share of the parameters
    refused: str | None  # why the student was not pruned; None: it was
    before: Metrics
    cost_before: Cost
    rounds: int = 1  # of removing channels, with fine-tuning in between
    widths: dict[str, tuple[int, int]] = {}  # channels in and out of each layer that changed
    channels_removed: float | None = None  # share asked of every layer; of all layers together for taylor
    sums_pruned: bool = False  # True if channels of residual sums went too
    cost: Cost | None = None
    pruned: Metrics | None = None  # before fine-tuning
    tuned: Metrics | None = None
    learning_rate: float | None = None
    best_epoch: int | None = None
    stopped_early: bool = False
    curve: tuple[EpochRecord, ...] = ()

    def applied_to(self, distilled: DistillResult) -> DistillResult:
        """Return the shipped student's result: with the pruned one's cost and accuracy, unless pruning was refused."""
        if self.refused is not None or self.cost is None or self.tuned is None:
            return distilled
        step: dict[str, object] = {"name": "prune", "method": self.method, "params": self.cost.params}
        return distilled.model_copy(
            update={"methods": (*distilled.methods, step), "validation": self.tuned, "cost": self.cost}
        )
