"""Labels mixed into the teacher's answer: an anchor that keeps generations of self-distillation from collapsing.

Borup and Andersen, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
Self-Distillation", NeurIPS 2021, arXiv:2102.13088. Each generation's target is z = a y + (1 - a) f(x), with the one
before as f.

Trap: the paper's alpha is the labels' weight. It is `label_share` here.
"""

# N examples, K classes

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.networks.network import View


class LabelAnchorConfig(MethodConfig):
    """Target of labels and teacher in one."""

    name: Literal["label_anchor"] = "label_anchor"
    label_share: float = tunable(
        0.6, ge=0, le=1, tune=(0.05, 0.9), description="share (alpha) of the label in the target; the authors' deep 0.6"
    )
    loss: Literal["kl", "squared"] = Field(
        "kl", description="distance to the target; squared: of probabilities, the authors' deep version"
    )
    temperature: float = tunable(
        1.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="temperature (T) of teacher and student"
    )


class LabelAnchor(Method):
    """Loss D(a y + (1 - a) softmax(t / T), softmax(s / T)), D: T^2 KL, or the squared distance of probabilities.

    The squared distance has the gradient of a |p - y|^2 + (1 - a) |p - p_T|^2, whose value is larger by a constant. An
    example without a label has the teacher's answer as its target.
    """

    name: ClassVar[str] = "label_anchor"
    paper: ClassVar[str] = "Borup, Andersen 2021, arXiv:2102.13088"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("self-knowledge",),
        ablation={"label_share": 0.0, "loss": "kl", "temperature": 4.0},
        reduces_to=({"name": "kd"}, {"name": "fixed_weights", "label_weight": 0.0, "distill_weight": 1.0}),
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = LabelAnchorConfig
    config: LabelAnchorConfig

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        told = softened(teacher.logits, self.config.temperature)
        if batch.mixed is None:
            return self._anchored(told, batch.targets)
        first, second = (self._anchored(told, targets) for targets in batch.mixed.targets)
        share = batch.mixed.share[:, None]
        return share * first + (1 - share) * second

    def _anchored(self, told: Tensor, targets: Tensor) -> Tensor:
        known = (targets != UNLABELLED)[:, None]
        labels = F.one_hot(targets.clamp_min(0), told.shape[1]).to(told.dtype)
        return told + self.config.label_share * known * (labels - told)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        if self.config.loss == "kl":
            return softened_kl(student.logits, target, self.config.temperature)
        return (softened(student.logits, self.config.temperature) - target.detach()).square().sum(1)

    def usual_weight(self) -> tuple[float, float]:
        return 0.0, 1.0
