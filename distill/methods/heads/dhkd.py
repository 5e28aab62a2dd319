"""DHKD: a second head learns the teacher's logits, so that they do not pull at the classifier that ships.

Yang et al., "Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head", 2024,
arXiv:2411.08937. Follows the authors' code: its "BinaryKLNorm" is written as the log-cosh that it equals, which does
not overflow, and gradients are aligned as by PCGrad, in one direction: the labels' is never altered.

The loss compares logits, not probabilities: a shift of either side's counts.
"""

# N examples, K classes, D embedding width, P parameters

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.randomness import drawn_from


class DHKDConfig(MethodConfig):
    """A second head for the teacher's logits, in training alone."""

    name: Literal["dhkd"] = "dhkd"
    second_head: bool = Field(
        True, description="learn the teacher's logits by a head of their own; false: by the first"
    )
    hidden: int = Field(0, ge=0, le=100_000, description="width of the second head's hidden layer; 0: a Linear alone")
    align: bool = Field(True, description="remove the part of the teacher's gradient that opposes the labels'")
    temperature: float = tunable(
        2.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="scale (T) of the difference of logits"
    )
    distill_weight: float = tunable(
        1.0,
        ge=0,
        le=1e4,
        tune=(0.01, 2.0),
        log=True,
        description="weight (b) of distillation; labels weigh 1; unused if a method fills `weight`",
    )

    def unread(self) -> frozenset[str]:
        return frozenset() if self.second_head else frozenset({"hidden"})


class DHKD(Method):
    """Loss CE(head_1, y) + b T^2 sum_k log cosh((head_2 - t) / 2T); with `align`, where the gradients' product is < 0,

    g_kd <- g_kd - <g_kd, g_ce> / |g_ce|^2 g_ce.
    """

    name: ClassVar[str] = "dhkd"
    paper: ClassVar[str] = "Yang et al. 2024, arXiv:2411.08937"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        ablation={"distill_weight": 0.0},
        reduces_to=({"name": "none"},),
        invariant_to=frozenset({"shift", "scale"}),  # of the head that ships: the teacher is compared with the other
        cost=3.0,
        suits=lambda about: True,
    )
    Config: ClassVar[type[MethodConfig]] = DHKDConfig
    config: DHKDConfig
    _head: nn.Module | None = None

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        for other in others:
            if "logits" in other.fills:
                yield (
                    f"method {self.name!r} has its second head learn the teacher's logits as they are, and method "
                    f"{other.name!r} transforms them; leave one of them out"
                )

    def prepare(self, context: Context) -> None:
        if self.config.second_head:
            self._head = self._made(embedding_width(context.student, context), context)

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return teacher.logits

    def divergence(self, target: Tensor, student: View) -> Tensor:
        logits = student.logits if self._head is None else self._head(student.embedding)
        return log_cosh_distance(precise(logits), target, self.config.temperature)

    def usual_weight(self) -> tuple[float, float]:
        return 1.0, self.config.distill_weight

    def combine_gradients(self, gradients: Mapping[str, Tensor]) -> Tensor:
        aligned = dict(gradients)
        if self.config.align and {"cross_entropy", "distillation"} <= gradients.keys():
            aligned["distillation"] = without_opposition(gradients["distillation"], gradients["cross_entropy"])
        return torch.stack(list(aligned.values())).sum(0)

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._head is None else self._head.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._head is None else {"head": self._head}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._head is None else dict(self._head.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._head is not None:
            self._head.load_state_dict(state)

    def _made(self, width: int, context: Context) -> nn.Module:
        hidden, classes = self.config.hidden, context.task.num_classes
        with drawn_from(derive_seed(context.seed, self.name)):
            head: nn.Module = nn.Linear(hidden or width, classes)
            if hidden:
                head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), head)
        return head.to(context.device)


def log_cosh_distance(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 sum_k log cosh((s - t) / 2T), [N]; about |s - t|^2 / 8 where they are near, whatever the temperature."""
    z = ((student_logits - teacher_logits) / (2 * temperature)).abs()
    return temperature**2 * (z + F.softplus(-2 * z) - math.log(2)).sum(1)


def without_opposition(gradient: Tensor, leading: Tensor) -> Tensor:
    """Remove from a gradient [P] its part along the leading one, where the two oppose (Yu et al. 2020)."""
    product, square = gradient @ leading, leading @ leading
    return gradient - torch.where((product < 0) & (square > 0), product / square, 0.0) * leading
