"""Plain knowledge distillation, and the defaults of the equation's target, divergence and weight."""

from typing import ClassVar, Literal

from torch import Tensor

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View


class KDConfig(MethodConfig):
    """Softened teacher probabilities beside the labels."""

    name: Literal["kd"] = "kd"
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of teacher and student softmax"
    )
    distill_weight: float = distillation_share(0.9)


class KD(Method):
    """Loss L = (1 - b) CE + b T^2 KL(softmax(t / T) || softmax(s / T)), Hinton et al. 2015, section 2."""

    name: ClassVar[str] = "kd"
    paper: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv:1503.02531"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        ablation={"distill_weight": 0.0},
        reduces_to=({"name": "none"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=1.5,
    )
    Config: ClassVar[type[MethodConfig]] = KDConfig

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return softened(teacher.logits, self.config.temperature)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return softened_kl(student.logits, target, self.config.temperature)

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight
