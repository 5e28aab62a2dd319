"""LELP: the student learns subclasses of every class, seen in the teacher's embedding and not in its logits.

Loo, Iliopoulos, Hu and Vee, "Linear Projections of Teacher Embeddings for Few-Class Distillation", 2024,
arXiv:2409.20449. With p_c the teacher's class probabilities, q(s | c) those of c's subclasses (`subclasses.py`) and o
the student's C x S logits, the target is p_{c,s} = p_c q(s | c). Details left open by the paper are options here.
"""

# N examples, C classes, S subclasses a class

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.lelp.head import FoldedHead, fold, subclass_linear, with_classifier
from edgestill.distill.methods.lelp.subclasses import (
    Directions,
    Projections,
    ProjectionSettings,
    class_embeddings,
    fit_projections,
    require_examples,
)
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part

Loss = Literal["decomposed", "tempered_classes", "tempered_product"]
Control = Literal["none", "shuffled", "random_partition"]


class LELPConfig(MethodConfig):
    """Subclasses from linear projections of the teacher's embedding."""

    name: Literal["lelp"] = "lelp"
    subclasses: int = Field(8, ge=1, le=1000, description="number of subclasses of each class (S)")
    directions: Directions = Field(
        "pca", description="directions of the projections; pca: most variance; random: any; kmeans: towards its centres"
    )
    subclass_temperature: float = tunable(
        1.0, gt=0, le=100, tune=(0.25, 4.0), log=True, description="temperature (beta) of the subclass probabilities"
    )
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of teacher and student; see loss"
    )
    subclass_weight: float = tunable(
        4.0, ge=0, le=1000, tune=(0.5, 32.0), log=True, description="weight (lambda) of subclasses; loss decomposed"
    )
    loss: Loss = Field(
        "decomposed",
        description="form of the loss; decomposed: T on classes only; tempered_*: one joint KL",
    )
    null_space: bool = Field(
        True, description="project the embedding onto the directions unseen by the teacher's logits"
    )
    rotate: bool = Field(True, description="rotate the directions at random, so that none holds most of the variance")
    standardise: bool = Field(
        True, description="scale the projections to variance 1 in each class; kmeans: by the mean squared distance"
    )
    distill_weight: float = Field(
        1.0,
        ge=0,
        le=1,
        description="weight (b) of distillation; labels weigh a = 1 - b; unused if a method fills `weight`",
    )
    control: Control = Field(
        "none", description="control experiment: targets shuffled within a class, or a random partition into subclasses"
    )

    def unread(self) -> frozenset[str]:
        found = {"subclass_weight"} if self.loss != "decomposed" else set()
        return frozenset(found | ({"subclass_temperature"} if self.control == "random_partition" else set()))


class LELP(Method):
    """Loss `decomposed`: T^2 KL(p^T || softmax(lse_s(o) / T)) + lambda sum_c p^T_c KL(q_c || softmax_s(o_c)).

    It is the chain rule of the joint KL, with a temperature and a weight of their own for each part. At T = 1 and
    lambda = 1 it is the paper's loss, and at lambda = 0 plain KD.
    """

    name: ClassVar[str] = "lelp"
    paper: ClassVar[str] = "Loo, Iliopoulos, Hu, Vee 2024, arXiv:2409.20449"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence", "head"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("labelling", "feature"),
        ablation={"subclass_weight": 0.0},
        changes_graph=True,
        cost=4.0,
        suits=lambda about: about.classes <= 10,
    )
    studies_teacher: ClassVar[bool] = True
    to_shrink: ClassVar[str] = "set fewer subclasses"
    Config: ClassVar[type[MethodConfig]] = LELPConfig
    _linear: nn.Linear | None = None
    _projections: Projections | None = None
    _table: Tensor | None = None  # with a control: q of each training example, [N, C, S]

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding", "classifier"} if self.config.null_space else {"embedding"})

    def check(self, task: Task, train: ImageSplit) -> None:
        if bool((train.targets != UNLABELLED).all()):  # otherwise the teacher will give the missing classes
            require_examples(torch.bincount(train.targets.cpu(), minlength=task.num_classes), self.config.subclasses)

    def prepare(self, context: Context) -> None:
        self._linear = subclass_linear(
            context.student, self.config.subclasses, derive_seed(context.seed, "lelp", "head")
        )

    def study(self, context: Context) -> None:
        config = self.config
        settings = ProjectionSettings(
            config.subclasses, config.directions, config.null_space, config.rotate, config.standardise
        )
        self._projections = fit_projections(
            context.teacher,
            context.train,
            context.task.num_classes,
            settings,
            seed=derive_seed(context.seed, self.name),
            device=context.device,
        )
        self._table = None if config.control == "none" else self._control(context)

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        """Return [N, C, 1 + S]: p_c first, then q(s | c); p at T, but for `tempered_product` at 1."""
        assert self._projections is not None, "prepare() comes before target()"
        if self._table is None:
            q = self._projections.probabilities(teacher.embedding, self.config.subclass_temperature)
        else:
            q = self._table[batch.index]
        at = 1.0 if self.config.loss == "tempered_product" else self.config.temperature
        return torch.cat([softened(teacher.logits, at).unsqueeze(2), q], 2)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        p, q = target[:, :, 0], target[:, :, 1:]
        temperature = self.config.temperature
        if self.config.loss == "decomposed":
            classes = softened_kl(self.class_logits(student.logits), p, temperature)
            log_within = student.logits.float().reshape(q.shape).log_softmax(2)
            within: Tensor = F.kl_div(log_within, q, reduction="none").sum(2)  # [N, C]
            weighted: Tensor = classes + self.config.subclass_weight * (p * within).sum(1)
            return weighted
        joint = (p.unsqueeze(2) * q).flatten(1)  # p_{c,s} = p_c q(s | c)
        if self.config.loss == "tempered_product":
            joint = softened(joint.log(), temperature)
        return softened_kl(student.logits, joint, temperature)

    def head(self, embedding: Tensor) -> Tensor:
        assert self._linear is not None, "prepare() comes before head()"
        logits: Tensor = self._linear(embedding)
        return logits

    def class_logits(self, logits: Tensor) -> Tensor:
        return fold(logits.float(), self.config.subclasses)

    def deployable(self, student: nn.Module) -> nn.Module:
        linear = self._linear or subclass_linear(student, self.config.subclasses)
        return with_classifier(student, FoldedHead(linear, self.config.subclasses))

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._linear is None else self._linear.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._linear is None else {"head": self._linear}

    def state_dict(self) -> dict[str, Any]:
        """Include the projections: a new fit may find other signs, and the head was taught these subclasses."""
        assert self._linear is not None, "prepare() comes before state_dict()"
        assert self._projections is not None
        state = {f"linear.{name}": value for name, value in self._linear.state_dict().items()}
        state |= {"weights": self._projections.weights, "offsets": self._projections.offsets}
        return state if self._table is None else state | {"table": self._table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._linear is not None, "prepare() comes before load_state_dict()"
        device = self._linear.weight.device
        self._linear.load_state_dict({name: state[f"linear.{name}"] for name in ("weight", "bias")})
        self._projections = Projections(state["weights"].to(device), state["offsets"].to(device))
        self._table = state["table"].to(device) if "table" in state else None

    def _control(self, context: Context) -> Tensor:
        """Return q of each training example under the control; it stays with the example, however that is altered."""
        assert self._projections is not None
        pairs = list(class_embeddings(context.teacher, context.train, context.device))
        embeddings, classes = (torch.cat(columns) for columns in zip(*pairs, strict=True))
        generator = torch.Generator().manual_seed(derive_seed(context.seed, self.name, self.config.control))
        shape = (len(classes), context.task.num_classes)
        if self.config.control == "random_partition":
            parts = torch.randint(self.config.subclasses, shape, generator=generator)
            return F.one_hot(parts, self.config.subclasses).float().to(context.device)
        donors = torch.arange(len(classes))
        for c in range(context.task.num_classes):
            own = torch.nonzero(classes == c).flatten()
            donors[own] = own[torch.randperm(len(own), generator=generator)]
        q = self._projections.probabilities(embeddings.to(context.device), self.config.subclass_temperature)
        return q[donors.to(q.device)]
