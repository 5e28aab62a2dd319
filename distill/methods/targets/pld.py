"""PLD: the student ranks the label first and the other classes as the teacher does, by a Plackett-Luce model.

Bassam, Zhu and Bian, "PLD: A Choice-Theoretic List-Wise Knowledge Distillation", NeurIPS 2025, arXiv:2506.12542. The
loss is convex in the student's logits, takes the place of cross-entropy and KL, and has no weight between them.

For two classes it is q_y CE, the labels weighted by the teacher's confidence. Where the teacher is sure of another
class, q_y is near 0 and the label teaches little: the measures tell the mean of q_y and how often it is below 0.1.
"""

# N examples, K classes

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import precise, softened
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.networks.network import View

_LITTLE = 0.1  # q_y below which a label is said to teach little


class PLDConfig(MethodConfig):
    """Ranking of the classes as the teacher ranks them, the label first."""

    name: Literal["pld"] = "pld"
    temperature: float = tunable(
        2.0, gt=0, le=100, tune=(1.0, 4.0), log=True, description="temperature (tau_T) of the teacher's softmax, q"
    )
    ranks: Literal["teacher", "equal"] = Field(
        "teacher", description="weights of the ranks: the teacher's probabilities, or all equal (ListMLE)"
    )

    def unread(self) -> frozenset[str]:
        return frozenset({"temperature"} if self.ranks == "equal" else ())


class PLD(Method):
    """Loss sum_k q_{pi_k} [logsumexp_{l >= k} s_{pi_l} - s_{pi_k}], with q = softmax(t / tau_T), equations 8 to 10.

    The order pi is the label, then the other classes by falling teacher logit; without a label, all by the teacher's.
    """

    name: ClassVar[str] = "pld"
    paper: ClassVar[str] = "Bassam, Zhu, Bian 2025, arXiv:2506.12542"
    fills: ClassVar[frozenset[Slot]] = frozenset({"objective"})
    takes_rows: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        algorithm="ranking",
        ablation={"ranks": "equal"},
        invariant_to=frozenset({"shift"}),
        suits=lambda about: about.classes > 2,
    )
    Config: ClassVar[type[MethodConfig]] = PLDConfig
    config: PLDConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._forget()

    def cautions(self, others: Sequence[Method]) -> Iterable[str]:
        if any(other.name == "logit_standardisation" for other in others):
            yield (
                "logit_standardisation lowers pld's accuracy in its paper (71.16 to 70.66 % on CIFAR-100); "
                "try pld without it"
            )

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        q = softened(teacher.logits, self.config.temperature).detach()
        weights = q if self.config.ranks == "teacher" else torch.full_like(q, 1 / q.shape[1])
        if batch.mixed is not None:
            parts = (self._loss(teacher, student, weights, targets) for targets in batch.mixed.targets)
            return batch.mixed.blended(*parts)
        self._count(q, batch.targets)
        return self._loss(teacher, student, weights, batch.targets)

    def measures(self) -> dict[str, float]:
        if not self._seen:
            return {}
        mean, little = (self._confidence / self._seen).tolist()
        return {"teacher_on_label": mean, "labels_that_teach_little": little}

    def _loss(self, teacher: View, student: View, weights: Tensor, targets: Tensor) -> Tensor:
        return plackett_luce(precise(student.logits), weights, order(precise(teacher.logits.detach()), targets))

    def _count(self, q: Tensor, targets: Tensor) -> None:
        labelled = targets != UNLABELLED
        own = q[labelled].gather(1, targets[labelled, None])
        self._confidence += torch.stack([own.sum(), (own < _LITTLE).sum()]).double().cpu()
        self._seen += len(own)

    def prepare(self, context: Context) -> None:
        self._forget()

    def _forget(self) -> None:
        self._confidence = torch.zeros(2, dtype=torch.float64)  # of q_y: sum, number below _LITTLE
        self._seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"confidence": self._confidence, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._confidence, self._seen = state["confidence"].clone(), state["seen"]


def order(teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Return pi, [N, K]: the label, if there is one, then the other classes by falling teacher logit."""
    labelled = targets != UNLABELLED
    raised = teacher_logits.clone()
    raised[labelled, targets[labelled]] = torch.inf
    return raised.argsort(dim=1, descending=True, stable=True)


def plackett_luce(student_logits: Tensor, weights: Tensor, ordered: Tensor) -> Tensor:
    """Return sum_k w_{pi_k} [logsumexp_{l >= k} s_{pi_l} - s_{pi_k}], [N]; all arguments [N, K]."""
    s = student_logits.gather(1, ordered)
    rest = s.flip(1).logcumsumexp(1).flip(1)
    return (weights.gather(1, ordered) * (rest - s)).sum(1)
