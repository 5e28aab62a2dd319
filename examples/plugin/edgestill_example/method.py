"""Total variation: the share of probability by which the student's answer differs from the teacher's."""

from typing import ClassVar, Literal

from torch import Tensor

from edgestill.distill.losses import softened
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View


class TotalVariationConfig(MethodConfig):
    """Distance of softened probabilities."""

    name: Literal["total_variation"] = "total_variation"
    temperature: float = tunable(2.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="T, of both softmaxes")


class TotalVariation(Method):
    """Loss L = (1 - b) CE + b sum_k |p_k - q_k| / 2, with p and q the teacher's and the student's softmax at T."""

    name: ClassVar[str] = "total_variation"
    paper: ClassVar[str] = "an example without a paper, 2026"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours", zero_at_teacher=True, invariant_to=frozenset({"shift"}), cost=1.5
    )
    Config: ClassVar[type[MethodConfig]] = TotalVariationConfig

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return softened(teacher.logits, self.config.temperature)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return (target - softened(student.logits, self.config.temperature)).abs().sum(1) / 2
