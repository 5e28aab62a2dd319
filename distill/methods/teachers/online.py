"""Online teacher: it goes on learning beside the student, from the labels and from the student's answers.

After Amara et al., "BD-KD: Balancing the Divergences for Online Knowledge Distillation", 2022, arXiv:2212.12965, and
deep mutual learning (Zhang et al. 2018, arXiv:1706.00384); BD-KD's own weights could not be had. There both networks
begin untrained; here the teacher is a copy of the given one, which is left as it was.

Either network is a constant in the other's loss. Both learn at the student's learning rate, by one optimizer, whose
weight decay and momentum are the student's too. A large rate can undo a trained teacher: the measures tell its accuracy
on the reference split at the end.
"""

# N examples, K classes

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.label_loss import label_loss
from edgestill.pipeline.training.metrics import evaluate


class OnlineTeacherConfig(MethodConfig):
    """A copy of the teacher that learns with the student."""

    name: Literal["online_teacher"] = "online_teacher"
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of both in the teacher's loss"
    )
    student_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.1, 4.0), log=True, description="weight (lambda) of the student in the teacher's loss"
    )


class OnlineTeacher(Method):
    """Teacher's loss CE(t, y) + lambda T^2 KL(p_t || p_s), with p_s without gradient; the student's is any recipe's."""

    name: ClassVar[str] = "online_teacher"
    paper: ClassVar[str] = "after BD-KD, Amara et al. 2022, arXiv:2212.12965"
    fills: ClassVar[frozenset[Slot]] = frozenset({"teacher", "feature"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        elicitation=("labelling", "feedback"),
        invariant_to=frozenset({"shift"}),
        holds_constant=True,
        cost=8.0,
    )
    Config: ClassVar[type[MethodConfig]] = OnlineTeacherConfig
    config: OnlineTeacherConfig
    _network: nn.Module | None = None
    _seen: tuple[Tensor, Tensor] | None = None  # inputs, and the teacher's logits on them with their graph

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"gradients", "inputs"})

    def prepare(self, context: Context) -> None:
        self._context = context
        self._network = copy.deepcopy(context.teacher)
        self._network.requires_grad_(True)

    def teacher(self, inputs: Tensor) -> View:
        """Look at a batch of a training step in training mode, keeping the graph for `feature`; the view has none."""
        network = self._own()
        if not torch.is_grad_enabled():
            with evaluating(network):
                return look(network, inputs)
        view = look(network.train(), inputs)
        self._seen = inputs, view.logits
        return View(*(part.detach() for part in view))

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        logits = precise(self._live(batch.inputs))
        temperature = self.config.temperature
        labels = label_loss(logits, batch)
        agreement = reverse_kl(logits, student.logits.detach(), temperature)
        if batch.weight is not None:
            labels, agreement = batch.weight * labels, batch.weight * agreement
        return {
            "teacher_cross_entropy": labels.mean(),
            "teacher_divergence": self.config.student_weight * agreement.mean(),
        }

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._network is None else self._network.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._network is None else {"teacher": self._network}

    def measures(self) -> dict[str, float]:
        reference = self._context.reference.labelled()
        return {"reference_accuracy": evaluate(self._own(), reference, self._context.device).accuracy}

    def state_dict(self) -> dict[str, Any]:
        return dict(self._own().state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._own().load_state_dict(state)

    def _own(self) -> nn.Module:
        assert self._network is not None, "prepare() comes first"
        return self._network

    def _live(self, inputs: Tensor) -> Tensor:
        """Logits on the step's inputs with their graph: those of `teacher`, if it saw the same inputs last."""
        seen, self._seen = self._seen, None
        if seen is not None and seen[0] is inputs:
            return seen[1]
        return look(self._own().train(), inputs).logits


def reverse_kl(logits: Tensor, fixed: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(logits / T) || softmax(fixed / T)), [N], with a gradient to the first alone."""
    log_p = (logits / temperature).log_softmax(1)
    log_q = (precise(fixed) / temperature).log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)
