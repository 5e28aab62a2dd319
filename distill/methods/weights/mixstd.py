"""MIXSTD: both logits are divided by their own standard deviation, in the cross-entropy too.

Choi, Jeon, Shukla and Turaga, WACV 2023, arXiv:2211.03946: the temperature of the recipe that goes with `mixup_kd`.
Follows the authors' code.

What ships gives the plain logits. Their order is the same; their calibration is not that of the scaled ones, which the
authors' code evaluates.
"""

# N examples, K classes

from typing import ClassVar, Literal

from torch import Tensor

from edgestill.distill.losses import precise, softened, softened_kl
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.training.label_loss import label_loss

_TINY = 1e-7  # of a row of equal logits


class MixStdConfig(MethodConfig):
    """Labels and teacher on logits of standard deviation 1."""

    name: Literal["mixstd"] = "mixstd"
    distill_weight: float = tunable(
        0.9, ge=0, le=1, tune=(0.1, 1.0), description="weight (b) of the teacher; labels weigh 1 - b"
    )


class MixStd(Method):
    """Loss (1 - b) CE(s / std s) + b KL(softmax(t / std t) || softmax(s / std s)), without T^2.

    Two classes are refused: s / std s then has a fixed gap of sqrt 2, and neither term a gradient.
    """

    name: ClassVar[str] = "mixstd"
    paper: ClassVar[str] = "Choi, Jeon, Shukla, Turaga 2023, arXiv:2211.03946"
    fills: ClassVar[frozenset[Slot]] = frozenset({"objective"})
    takes_rows: ClassVar[bool] = True
    min_classes: ClassVar[int] = 3
    facts: ClassVar[Facts | None] = Facts(evidence="code", invariant_to=frozenset({"shift", "scale"}))
    Config: ClassVar[type[MethodConfig]] = MixStdConfig
    config: MixStdConfig

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        b, own = self.config.distill_weight, of_deviation_1(student.logits)
        told = softened_kl(own, softened(of_deviation_1(teacher.logits), 1.0), 1.0)
        return (1 - b) * label_loss(own, batch) + b * told


def of_deviation_1(logits: Tensor) -> Tensor:
    """Divide each example's logits [N, K] by their unbiased standard deviation."""
    logits = precise(logits)
    return logits / (logits.std(1, keepdim=True) + _TINY)
