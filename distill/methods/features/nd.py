"""ND: the student's embedding points towards its class's mean in the teacher's space, at no less than its norm.

Wang, Cheng, Yang, Fan and Yang, "Improving Knowledge Distillation via Regularizing Feature Norm and Direction", 2023,
arXiv:2305.17007; "KD++" is plain KD with this loss. Follows the authors' code.

KD++ weighs plain KD on top of a whole cross-entropy, and warms it up over 20 epochs:

    methods: [kd, {name: nd, nd_weight: 2},
              {name: fixed_weights, label_weight: 1, distill_weight: 1, warmup_epochs: 20}]

with (distill_weight, nd_weight) of (1, 2) for ResNet-56 to 20, (3.5, 2) for 32x4 to 8x4, (1, 1.5) for WRN-40-2 to 40-1
and (3, 0.5) for ResNet-50 to MobileNetV2.
"""

# N examples, K classes, D_T and D_S widths of the embeddings

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.lelp.subclasses import class_embeddings
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.randomness import drawn_from

_TINY = 1e-12


class NDConfig(MethodConfig):
    """Norm and direction of the student's embedding."""

    name: Literal["nd"] = "nd"
    nd_weight: float = tunable(
        2.0, ge=0, le=1e4, tune=(0.25, 8.0), log=True, description="weight of norm and direction; authors 0.5 to 2"
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="dropout before the projection to the teacher's width, where the widths differ"
    )


class ND(Method):
    """Loss w mean_n [1 - <g(e_S), c_y / |c_y|> / max(|g(e_S)|, |e_T|)], c_y the teacher's mean embedding of class y.

    In [0, 2], and 0 only for an embedding that is aligned and at least as long as the teacher's; a longer one gains
    nothing. Where the widths differ g is batch norm, dropout and a Linear, thrown away after training; else the
    identity. An example without a label takes the teacher's class, and a class without examples gives no loss.
    """

    name: ClassVar[str] = "nd"
    paper: ClassVar[str] = "Wang, Cheng, Yang, Fan, Yang 2023, arXiv:2305.17007"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("feature",),
        ablation={"nd_weight": 0.0},
        reduces_to=({"name": "kd"},),
        invariant_to=frozenset({"shift"}),
        suits=lambda about: True,
    )
    Config: ClassVar[type[MethodConfig]] = NDConfig
    config: NDConfig
    _projection: nn.Module | None = None  # g

    def prepare(self, context: Context) -> None:
        own, given = (embedding_width(network, context) for network in (context.student, context.teacher))
        with drawn_from(derive_seed(context.seed, self.name)):
            parts = nn.BatchNorm1d(own), nn.Dropout(self.config.dropout), nn.Linear(own, given)
            self._projection = (nn.Identity() if own == given else nn.Sequential(*parts)).to(context.device)
        self._centres = torch.zeros(context.task.num_classes, given, device=context.device)  # [K, D_T], of length 1

    def study(self, context: Context) -> None:
        sums = torch.zeros(self._centres.shape, dtype=torch.float64)
        for embedding, classes in class_embeddings(context.teacher, context.train, context.device):
            sums.index_add_(0, classes, embedding)
        self._centres = F.normalize(sums, dim=1, eps=_TINY).float().to(context.device)

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        assert self._projection is not None, "prepare() comes before feature()"
        own, given = self._projection(student.embedding), teacher.embedding.detach()
        if batch.mixed is None:
            losses = self._losses(own, given, self._classes(batch.targets, teacher))
        else:
            first, second = (self._classes(targets, teacher) for targets in batch.mixed.targets)
            losses = batch.mixed.blended(self._losses(own, given, first), self._losses(own, given, second))
        return {"nd": self.config.nd_weight * (losses if batch.weight is None else batch.weight * losses).mean()}

    def _classes(self, targets: Tensor, teacher: View) -> Tensor:
        return torch.where(targets == UNLABELLED, teacher.logits.argmax(1), targets)

    def _losses(self, own: Tensor, given: Tensor, classes: Tensor) -> Tensor:
        """Return each example's loss, [N]; 0 for a class without a centre."""
        centres = self._centres[classes]
        return norm_and_direction(own, given, centres) * centres.any(1)

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._projection is None else self._projection.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._projection is None or not list(self.trainable()) else {"projection": self._projection}

    def state_dict(self) -> dict[str, Any]:
        assert self._projection is not None, "prepare() comes before state_dict()"
        return {"projection": self._projection.state_dict(), "centres": self._centres}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._projection is not None, "prepare() comes before load_state_dict()"
        self._projection.load_state_dict(state["projection"])
        self._centres = state["centres"].to(self._centres.device)


def norm_and_direction(own: Tensor, given: Tensor, centres: Tensor) -> Tensor:
    """Return 1 - <s, c> / max(|s|, |t|), [N], of embeddings s and t and unit vectors c, all [N, D]."""
    longer = torch.maximum(own.norm(dim=1), given.norm(dim=1)).clamp_min(_TINY)
    return 1 - (own * centres).sum(1) / longer
