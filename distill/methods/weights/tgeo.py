"""TGeo: a small network learns each example's weight of the teacher from where student, teacher and label lie.

After Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For Knowledge Distillation", ICLR 2024,
arXiv:2312.15112. The geometry is the paper's. The one-step unroll that trains the controller is ours: in the released
code its output is computed without gradients, so that nothing reaches it.

    alpha_n = sigmoid(f(S, T, G, Tbar_y))        theta' = theta - lr grad mean_n [alpha_n T^2 KL_n + (1 - alpha_n) CE_n]

The controller f follows the gradient of the reference split's cross-entropy at theta'. S is the student's
probabilities, T the teacher's, G the label's and Tbar_y the teacher's mean over the training examples of class y.

Trap: alpha is the weight of distillation here, and that of the labels in other papers.
"""

# N examples, K classes

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.device import full_precision
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.label_loss import label_loss
from edgestill.pipeline.training.objective import Moment


class TGeoConfig(MethodConfig):
    """Weights of each example, learnt on the reference split."""

    name: Literal["tgeo"] = "tgeo"
    geometry: Literal["full", "scalar"] = Field(
        "full",
        description="what the controller reads; full: vertices and signed edges, 9 numbers a class; scalar (ours, for "
        "many classes): six distances and four probabilities of the label",
    )
    width: int = Field(64, ge=1, le=4096, description="width of the controller's hidden layer; the paper's 32 to 128")
    temperature: float = tunable(
        4.0,
        gt=0,
        le=100,
        tune=(1.0, 16.0),
        log=True,
        description="temperature (tau) of the KL in the unrolled step; that of the recipe's divergence, KD's 4",
    )
    controller_lr: float = tunable(
        0.01, gt=0, le=10, tune=(1e-3, 0.1), log=True, description="learning rate of the controller's Adam"
    )
    unroll_lr: float = tunable(
        0.1, gt=0, le=100, tune=(0.01, 1.0), log=True, description="learning rate of the step that is unrolled"
    )
    reference_batch: int = Field(64, ge=1, le=65536, description="reference examples of each outer loss")
    every: int = Field(1, ge=1, le=10_000, description="steps of the student for each step of the controller")
    frozen_alpha: float | None = Field(
        None, ge=0, le=1, description="the same alpha for every example, in the place of the controller; null: learnt"
    )

    def unread(self) -> frozenset[str]:
        learnt = frozenset({"temperature", "controller_lr", "unroll_lr"})
        return frozenset() if self.frozen_alpha is None else learnt


class TGeo(Method):
    """Loss (1 - alpha_n) CE + alpha_n D, alpha_n by a controller of two layers; after the paper.

    An example without a label takes the teacher's class as G. A class without training examples takes its own corner as
    Tbar. Each step of the controller takes two forward passes and a double backward pass of the student.
    """

    name: ClassVar[str] = "tgeo"
    paper: ClassVar[str] = "after Hu et al. 2024, arXiv:2312.15112"
    fills: ClassVar[frozenset[Slot]] = frozenset({"weight"})
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        ablation={"frozen_alpha": 0.9},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=6.0,
    )
    Config: ClassVar[type[MethodConfig]] = TGeoConfig
    config: TGeoConfig
    _controller: nn.Module | None = None
    _told: Tensor | None = None  # the teacher's logits on the batch of this step

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset()

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        for other in others:
            if "head" in other.fills:
                yield (
                    f"method {self.name!r} unrolls a step of the student's own logits, and the head of method "
                    f"{other.name!r} gives others; leave one of them out"
                )

    def prepare(self, context: Context) -> None:
        classes = context.task.num_classes
        self._context, self._classes = context, classes
        self._means = torch.eye(classes, device=context.device)  # Tbar of each class, [K, K]
        self._reference = context.reference.labelled()
        self._seen = torch.zeros(2, dtype=torch.float64)  # of alpha in this epoch: sum, number
        self._mean_alpha = 0.0
        inputs = 9 * classes if self.config.geometry == "full" else 10
        with drawn_from(derive_seed(context.seed, self.name)):
            layers = nn.Linear(inputs, self.config.width), nn.LeakyReLU(), nn.Linear(self.config.width, 1)
            self._controller = nn.Sequential(*layers).to(context.device)
        self._optimizer = torch.optim.Adam(self._controller.parameters(), lr=self.config.controller_lr)

    def study(self, context: Context) -> None:
        sums = torch.zeros(self._classes, self._classes, dtype=torch.float64, device=context.device)
        counts = torch.zeros(self._classes, dtype=torch.float64, device=context.device)
        with torch.no_grad():
            for batch in context.train.batches(512, context.device):
                p = softened(look(context.teacher, batch.inputs).logits, 1.0).double()
                classes = torch.where(batch.targets == UNLABELLED, p.argmax(1), batch.targets)
                sums.index_add_(0, classes, p)
                counts += torch.bincount(classes, minlength=self._classes)
        found = (sums / counts.clamp_min(1)[:, None]).float()
        self._means = torch.where(counts[:, None] > 0, found, self._means)

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        if self.config.frozen_alpha is not None:
            return 1 - self.config.frozen_alpha, self.config.frozen_alpha
        self._told = teacher.logits
        with torch.no_grad():
            alpha = self.alpha(student.logits, teacher.logits, batch)
        self._seen += torch.stack([alpha.sum(), torch.tensor(float(len(alpha)), device=alpha.device)]).double().cpu()
        return 1 - alpha, alpha

    def alpha(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Weight of distillation of each example, [N], differentiable in the controller alone."""
        assert self._controller is not None, "prepare() comes before alpha()"
        kind = self._controller[0].weight.dtype  # type: ignore[index]
        s, t = (logits.detach().to(kind).softmax(1) for logits in (student_logits, teacher_logits))
        g, mean = (self._of_labels(table.to(kind), t, batch) for table in (torch.eye(self._classes), self._means))
        read = full_geometry if self.config.geometry == "full" else scalar_geometry
        found: Tensor = self._controller(read(s, t, g, mean)).squeeze(1).sigmoid()
        return found

    def _of_labels(self, table: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Row of each example's class in a table [K, K]; of a mixed example, the mean of two by their shares."""
        table, said = table.to(teacher.device), teacher.argmax(1)
        if batch.mixed is None:
            return table[torch.where(batch.targets == UNLABELLED, said, batch.targets)]
        first, second = (table[torch.where(y == UNLABELLED, said, y)] for y in batch.mixed.targets)
        share = batch.mixed.share.to(table.dtype)[:, None]
        return share * first + (1 - share) * second

    def tick(self, moment: Moment) -> None:
        told, self._told = self._told, None
        if told is None or moment.step % self.config.every:
            return
        assert self._controller is not None
        with full_precision(self._context.device), torch.enable_grad():
            outer = self.outer_loss(moment.network, moment.batch, told, self._reference_batch(moment.step))
            gradients = torch.autograd.grad(outer, list(self._controller.parameters()))
        for parameter, gradient in zip(self._controller.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()

    def _reference_batch(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(derive_seed(self._context.seed, self.name, "reference", step))
        chosen = torch.randperm(len(self._reference), generator=generator)[: self.config.reference_batch]
        return self._reference.batch(chosen, self._context.device)

    def outer_loss(self, network: nn.Module, batch: Batch, told: Tensor, reference: Batch) -> Tensor:
        """Cross-entropy of the reference batch after a step on the batch; differentiable in the controller.

        The network is as it was afterwards, its batch statistics too.
        """
        weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters() if p.requires_grad}
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
            logits = functional_call(network, (weights, buffers), (batch.inputs,))
            kl = softened_kl(logits, softened(told.to(logits.dtype), self.config.temperature), self.config.temperature)
            alpha = self.alpha(logits, told, batch)
            losses = alpha * kl + (1 - alpha) * label_loss(logits, batch)
            inner = (losses if batch.weight is None else batch.weight * losses).mean()
            steps = torch.autograd.grad(inner, list(weights.values()), create_graph=True, materialize_grads=True,
                                        allow_unused=True)  # fmt: skip
            moved = {name: w - self.config.unroll_lr * g for (name, w), g in zip(weights.items(), steps, strict=True)}
            return F.cross_entropy(functional_call(network, (moved, buffers), (reference.inputs,)), reference.targets)

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        if self._seen[1]:
            self._mean_alpha = float(self._seen[0] / self._seen[1])
        self._seen = torch.zeros(2, dtype=torch.float64)

    def measures(self) -> dict[str, float]:
        """Mean of alpha over the epoch's examples."""
        return {} if self.config.frozen_alpha is not None else {"mean_alpha": self._mean_alpha}

    def extras(self) -> Mapping[str, nn.Module]:
        learns = self._controller is not None and self.config.frozen_alpha is None
        return {"controller": self._controller} if learns and self._controller is not None else {}

    def state_dict(self) -> dict[str, Any]:
        assert self._controller is not None, "prepare() comes before state_dict()"
        return {
            "controller": self._controller.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "means": self._means,
            "mean_alpha": self._mean_alpha,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._controller is not None, "prepare() comes before load_state_dict()"
        self._controller.load_state_dict(state["controller"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._means = state["means"].to(self._means.device)
        self._mean_alpha = state["mean_alpha"]


def full_geometry(s: Tensor, t: Tensor, g: Tensor, mean: Tensor) -> Tensor:
    """Return the vertices S, T, Tbar and G, and the signed edges of the triangles S T G and S Tbar G; [N, 9 K]."""
    return torch.cat([s, t, mean, g, g - s, g - t, t - s, g - mean, mean - s], 1)


def scalar_geometry(s: Tensor, t: Tensor, g: Tensor, mean: Tensor) -> Tensor:
    """Return the six distances between the vertices, and each one's probability of the label; [N, 10]. Ours."""
    vertices = torch.stack([s, t, mean, g], 1)
    first, second = torch.triu_indices(4, 4, 1)
    distances = (vertices[:, first] - vertices[:, second]).norm(dim=2)
    return torch.cat([distances, (vertices * g[:, None]).sum(2)], 1)
