"""DCKD: distillation on both answers of a pair of preferences, and labels on the better one.

Gao et al., "Advantage-Guided Distillation for Preference Alignment in Small Language Models", ICLR 2025,
arXiv:2502.17927 (dual-constrained KD), after the authors' code:

    L = CE(chosen) + w [ KL(t || s) on chosen + KL(t || s) on rejected ]

Each of the three is a mean over its own tokens. w is not settled by the code that was read; 1 is ours.
"""

# R rows

from typing import ClassVar, Literal

import torch
from torch import Tensor

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.preferences import joined, rejected_of, shares
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers.teacher import Part


class DCKDConfig(MethodConfig):
    """The teacher's logits on better and worse answers."""

    name: Literal["dckd"] = "dckd"
    temperature: float = tunable(
        1.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="temperature (T) of teacher and student softmax"
    )
    chosen_weight: float = tunable(
        1.0, ge=0, le=100, tune=(0.1, 10.0), log=True, description="weight (w) of the divergence on the better answers"
    )
    rejected_weight: float = tunable(
        1.0, ge=0, le=100, tune=(0.1, 10.0), log=True, description="weight (w) of the divergence on the worse answers"
    )


class DCKD(Method):
    """Loss CE(chosen) + w T^2 KL on the chosen answers + w T^2 KL on the rejected ones, each a mean over tokens."""

    name: ClassVar[str] = "dckd"
    paper: ClassVar[str] = "Gao et al. 2025, arXiv:2502.17927"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data", "target", "divergence", "weight"})
    inputs: ClassVar[KindName | None] = "lm"
    takes_rows: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("labelling", "feedback"),
        granularity="token",
        ablation={"rejected_weight": 0.0},
        reduces_to=(
            {"name": "kd", "temperature": 1.0},
            {"name": "fixed_weights", "label_weight": 1.0, "distill_weight": 1.0},
        ),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=4.0,
    )
    Config: ClassVar[type[MethodConfig]] = DCKDConfig
    config: DCKDConfig

    @property
    def binds_rows(self) -> bool:
        return True

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    def check(self, task: Task, train: ImageSplit) -> None:
        rejected_of(train, self.name)

    def prepare(self, context: Context) -> None:
        assert isinstance(context.train, Sequences)
        self._train, self._rejected = context.train, rejected_of(context.train, self.name)

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        return joined(batch, self._rejected[self._train.texts_of(batch.index)])

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return softened(teacher.logits, self.config.temperature)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return softened_kl(student.logits, target, self.config.temperature)

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor, Tensor]:
        chosen, rejected = shares(batch)
        return chosen, self.config.chosen_weight * chosen + self.config.rejected_weight * rejected
