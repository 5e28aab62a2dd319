"""What tuning and distillation hand on."""

from distill.methods.base import Exhibit
from pipeline.cost import Cost
from pipeline.frozen import Frozen
from pipeline.metrics import Metrics
from pipeline.training_state import EpochRecord


class TrialRecord(Frozen):
    number: int
    state: str  # COMPLETE, PRUNED or FAIL
    params: dict[str, float]
    value: float | None  # best validation accuracy
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
    measures: dict[str, float] = {}  # what the methods say of their training, as `kd_aif.effective_sample_size`
    exhibits: tuple[Exhibit, ...] = ()
