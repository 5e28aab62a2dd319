"""TAID: the target moves from the student's own answer to the teacher's, as the student learns.

Shing, Misaki, Bao, Yokoi and Akiba, "TAID: Temporally Adaptive Interpolated Distillation", ICLR 2025, arXiv:2501.16937.
Follows the authors' code. Three departures: the divergence is a KL, so that the entropy of the target, a constant for
autograd, is left out of the reported loss; the linear clock counts the step that was just taken; and it never goes back
in a later stage's schedule.
"""

# N examples, K classes

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import softened
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.training.objective import Moment

_EPSILON = 1e-15  # of the authors' code


class TAIDConfig(MethodConfig):
    """A target between student and teacher, and the clock that moves it."""

    name: Literal["taid"] = "taid"
    clock: Literal["adaptive", "linear"] = Field(
        "adaptive", description="pace of the teacher's share u; adaptive: ahead of linear while the loss falls"
    )
    start: float = tunable(0.4, ge=0, le=1, tune=(0.0, 0.8), description="teacher's share (u) at the first step")
    rate: float = tunable(
        5e-4, ge=0, le=1, tune=(1e-4, 1e-2), log=True, description="step (alpha) of the adaptive clock"
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="decay (beta) of the relative fall's moving average")
    temperature: float = tunable(
        1.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="temperature (T) of target and student softmax"
    )
    distill_weight: float = distillation_share(1.0)

    def unread(self) -> frozenset[str]:
        return frozenset({"rate"} if self.clock == "linear" else ())


class TAID(Method):
    """Target softmax(((1 - u) s + u t) / T), s without gradient, for plain KD's or another divergence.

    The share u begins at `start` and is 1 at the end. The linear clock is u = start + (1 - start) progress; the
    adaptive one adds rate sigmoid(m) (1 - u) a step where that is more, with m the moving average of the relative fall
    of the cross-entropy from target to student. At u = 0 the gradient is 0, at u = 1 it is plain KD's.
    """

    name: ClassVar[str] = "taid"
    paper: ClassVar[str] = "Shing, Misaki, Bao, Yokoi, Akiba 2025, arXiv:2501.16937"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target"})
    takes_rows: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        ablation={"start": 1.0},
        reduces_to=({"name": "kd", "temperature": 1.0, "distill_weight": 1.0},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        suits=lambda about: True,
    )
    Config: ClassVar[type[MethodConfig]] = TAIDConfig
    config: TAIDConfig
    _share: float
    _momentum: float  # moving average of the relative fall
    _before: float | None  # loss of the last step

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._begin()

    def prepare(self, context: Context) -> None:
        self._begin()

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature, distill_weight=self.config.distill_weight))

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        temperature = self.config.temperature
        target = softened(torch.lerp(student.logits, teacher.logits, self._share), temperature)
        if self.config.clock == "adaptive":
            log_student = (student.logits / temperature).log_softmax(1)
            self._loss = -(target * log_student).sum(1).mean()
        return target

    def tick(self, moment: Moment) -> None:
        """Move the clock by the loss of the step's target; the first step only gives a loss to compare with."""
        linear = self.config.start + (1 - self.config.start) * moment.progress
        if self.config.clock == "linear":
            self._share = max(self._share, linear)
            return
        loss, before = float(self._loss), self._before
        self._before = loss
        if before is not None:
            fall = (before - loss) / (before + _EPSILON)
            self._momentum = self.config.momentum * self._momentum + (1 - self.config.momentum) * fall
            ahead = self._share + self.config.rate * _sigmoid(self._momentum) * (1 - self._share)
            self._share = min(1.0, max(linear, ahead))

    def measures(self) -> dict[str, float]:
        return {"teacher_share": self._share}

    def state_dict(self) -> dict[str, Any]:
        return {"share": self._share, "momentum": self._momentum, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._share, self._momentum, self._before = (state[name] for name in ("share", "momentum", "before"))

    def _begin(self) -> None:
        self._share = self.config.start
        self._momentum = 0.0
        self._before = None
        self._loss = torch.zeros(())


def _sigmoid(value: float) -> float:
    return float(torch.sigmoid(torch.tensor(value, dtype=torch.float64)))
