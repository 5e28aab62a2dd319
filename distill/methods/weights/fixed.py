"""Fixed weights of labels and teacher, and a warm-up of the teacher's."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View


class FixedWeightsConfig(MethodConfig):
    """Weights of labels and distillation that need not sum to 1."""

    name: Literal["fixed_weights"] = "fixed_weights"
    label_weight: float = tunable(1.0, ge=0, le=1e4, tune=(0.1, 2.0), log=True, description="weight (a) of the labels")
    distill_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.25, 8.0), log=True, description="weight (b) of distillation, after the warm-up"
    )
    warmup_epochs: float = Field(
        0.0, ge=0, le=100_000, description="epochs over which b grows evenly to its value; 0: none; KD++ takes 20"
    )


class FixedWeights(Method):
    """Loss a CE + b min(1, epoch / warmup_epochs) D, epochs counted from 1, as in KD++ (arXiv:2305.17007)."""

    name: ClassVar[str] = "fixed_weights"
    paper: ClassVar[str] = "the warm-up: Wang, Cheng, Yang, Fan, Yang 2023, arXiv:2305.17007"
    fills: ClassVar[frozenset[Slot]] = frozenset({"weight"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        ablation={"label_weight": 0.1, "distill_weight": 0.9, "warmup_epochs": 0.0},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = FixedWeightsConfig
    config: FixedWeightsConfig
    _epoch = 0  # that the next step belongs to

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[float, float]:
        warmup = self.config.warmup_epochs
        share = min(1.0, (self._epoch + 1) / warmup) if warmup else 1.0
        return self.config.label_weight, self.config.distill_weight * share

    def end_epoch(self, epoch: int, student: Any) -> None:
        self._epoch = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch = state["epoch"]
