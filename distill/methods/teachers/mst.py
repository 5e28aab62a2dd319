"""MST-Distill: several teachers, and a gate that learns which of them each example is to hear.

After Li et al., "MST-Distill: Mixture of Specialized Teachers for Cross-Modal Knowledge Distillation", ACM MM 2025,
arXiv:2507.07015, whose teachers are networks of two modalities. There is one input here: the teachers are the members
of an `ensemble`, and each member may see one strip of an image after the other (`parts`), which stand for modalities.

Followed from the authors' code: the gate (Linear to 2 K, Linear to one logit a teacher, on the student's logits), the
loss CE + the routed KD at temperature 4 + KL(uniform || mean gate) / teachers, and masks of the teachers that are
trained for an epoch before the student. Departures: in the released code the most likely teacher is chosen hard
(`routing: top`), so that the gate learns from the balance term alone; here the soft mixture, which stands unused in
their file, is the default. A mask is a network of two layers on a teacher's logits, so that any teacher will do, where
theirs is an attention over a layer within. The teachers are given and not trained along. What the masks are trained
towards is a copy of the student that learnt from all teachers for an epoch.
"""

# N examples, K classes, E teachers, C channels, H W height and width

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise, softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, evaluating
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.ensemble import EnsembleNetwork
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.label_loss import label_loss

_BATCH, _OPEN = 64, 4.0  # examples of a step of the masks, and the logit of a mask at its start


class MSTConfig(MethodConfig):
    """The teachers' views, their masks and the gate."""

    name: Literal["mst"] = "mst"
    parts: int = Field(
        2, ge=1, le=16, description="strips of an image, each seen by a teacher of its own; 1: teachers see all of it"
    )
    routing: Literal["soft", "top"] = Field(
        "soft", description="soft: a mixture of all teachers' divergences; top: the likeliest teacher's alone"
    )
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of teachers and student softmax"
    )
    label_weight: float = Field(1.0, ge=0, le=100, description="weight of the labels")
    teacher_weight: float = tunable(
        1.0, ge=0, le=100, tune=(0.1, 10.0), log=True, description="weight of the routed divergence"
    )
    balance_weight: float = Field(
        1.0, ge=0, le=100, description="weight of the pull towards an even use of the teachers"
    )
    mask_epochs: int = Field(1, ge=0, le=1000, description="epochs of the masks' training; 0: teachers unmasked")
    mask_learning_rate: float = Field(1e-4, gt=0, le=1, description="learning rate of the masks' training")


class MST(Method):
    """Loss CE + sum_e w_e T^2 KL(p_e || s) + KL(uniform || mean w) / E, with w = softmax(gate(s)) of each example."""

    name: ClassVar[str] = "mst"
    paper: ClassVar[str] = "after MST-Distill, Li et al. 2025, arXiv:2507.07015"
    fills: ClassVar[frozenset[Slot]] = frozenset({"objective", "feature"})
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        ablation={"parts": 1, "mask_epochs": 0},
        reduces_to=(
            {"name": "kd", "temperature": 4.0},
            {"name": "fixed_weights", "label_weight": 1.0, "distill_weight": 1.0},
        ),
        cost=3.0,
    )
    Config: ClassVar[type[MethodConfig]] = MSTConfig
    config: MSTConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"} if self.config.parts > 1 else ())

    @property
    def spares_teacher(self) -> bool:
        return True

    def check(self, task: Task, train: ImageSplit) -> None:
        if self.config.parts > 1 and task.kind != "image":
            raise ConfigError(["mst.parts are strips of images; set mst.parts to 1, with an ensemble as the teacher"])
        if task.kind == "image" and self.config.parts > task.input_shape[2]:
            raise ConfigError([f"mst.parts {self.config.parts} are more than an image of this size has columns"])

    def prepare(self, context: Context) -> None:
        self._context = context
        self._kept: Tensor | None = None  # [N, E, K]
        teacher = context.teacher
        members = list(teacher.members) if isinstance(teacher, EnsembleNetwork) else [teacher]
        self._teachers = [(member, part) for member in members for part in range(self.config.parts)]
        classes, count = context.task.num_classes, len(self._teachers)
        with drawn_from(derive_seed(context.seed, self.name)):
            self._gate = nn.Sequential(nn.Linear(classes, 2 * classes), nn.Linear(2 * classes, count))
            self._masks = nn.ModuleList(_mask(classes) for _ in range(count if self.config.mask_epochs else 0))
        self._gate.to(context.device)
        self._masks.to(context.device).requires_grad_(False)
        self._sums, self._shares = torch.zeros(count), torch.full((count,), 1 / count)

    def study(self, context: Context) -> None:
        """Train the masks towards a student that learnt from all teachers for an epoch."""
        if not self.config.mask_epochs:
            return
        with drawn_from(derive_seed(context.seed, self.name, "masks")), torch.enable_grad():
            guide = copy.deepcopy(context.student).train()
            self._fitted(guide.parameters(), 1, lambda batch, told: self._lesson(guide(batch.inputs), told, batch))
            guide.eval()
            self._masks.requires_grad_(True)
            epochs = self.config.mask_epochs
            self._fitted(self._masks.parameters(), epochs, lambda batch, told: self._towards(guide, batch, told))
            self._masks.requires_grad_(False)

    def _fitted(self, parameters: Iterable[nn.Parameter], epochs: int, loss: Callable[[Batch, Tensor], Tensor]) -> None:
        """Minimise a loss of batches and the unmasked teachers' answers [N, E, K]."""
        train, rate = self._context.train, self.config.mask_learning_rate
        optimizer = torch.optim.Adam(parameters, lr=rate)
        for _ in range(epochs):
            for few in torch.split(torch.randperm(len(train)), _BATCH):
                batch = train.batch(few.to(train.targets.device), self._context.device)
                optimizer.zero_grad(set_to_none=True)
                loss(batch, self._bare(batch.inputs)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def _lesson(self, logits: Tensor, told: Tensor, batch: Batch) -> Tensor:
        return (label_loss(logits, batch) + self._divergences(told, logits).mean(1)).mean()

    def _towards(self, guide: nn.Module, batch: Batch, told: Tensor) -> Tensor:
        """Divergence of the masked teachers from the guide's answer."""
        with torch.no_grad():
            wanted = softened(guide(batch.inputs), self.config.temperature)
        masked = self._masked(told).unbind(1)
        return torch.stack([softened_kl(one, wanted, self.config.temperature).mean() for one in masked]).sum()

    @torch.no_grad()
    def _bare(self, inputs: Tensor) -> Tensor:
        """Return the teachers' logits before their masks, each of its view, [N, E, K]."""
        with evaluating(*(member for member, _ in self._teachers)):
            seen = ((member, self._seen(inputs, part).to(_dtype(member))) for member, part in self._teachers)
            return torch.stack([member(view).float() for member, view in seen], 1)

    def _seen(self, inputs: Tensor, part: int) -> Tensor:
        """Keep one strip of images; the others have the mean of the training pixels, [N, C, H, W]."""
        if self.config.parts == 1:
            return inputs
        width = inputs.shape[3]
        first, end = (width * at // self.config.parts for at in (part, part + 1))
        mean = torch.tensor(self._context.task.mean, dtype=inputs.dtype, device=inputs.device).view(1, -1, 1, 1)
        seen = mean.expand_as(inputs).clone()
        seen[..., first:end] = inputs[..., first:end]
        return seen

    def _masked(self, logits: Tensor) -> Tensor:
        if not len(self._masks):
            return logits
        parts = [mask(one) * one for mask, one in zip(self._masks, logits.unbind(1), strict=True)]
        return torch.stack(parts, 1)

    def _told(self, batch: Batch) -> Tensor:
        """Return the masked teachers' logits [N, E, K]; of the split's own images they are kept."""
        if batch.view != 0 or batch.altered is not None or batch.mixed is not None:
            return self._answers(batch.inputs)
        if self._kept is None:
            whole = self._context.train.batches(512, self._context.device)
            self._kept = torch.cat([self._answers(part.inputs) for part in whole])
        return self._kept[batch.index]

    @torch.no_grad()
    def _answers(self, inputs: Tensor) -> Tensor:
        return self._masked(self._bare(inputs))

    def _divergences(self, told: Tensor, logits: Tensor) -> Tensor:
        """Divergence of the student from each teacher, [N, E]."""
        temperature = self.config.temperature
        each = [softened_kl(logits, softened(one, temperature), temperature) for one in told.unbind(1)]
        return torch.stack(each, 1)

    def _weights(self, logits: Tensor) -> Tensor:
        """Weight of each teacher for each example, [N, E]."""
        weights: Tensor = self._gate(precise(logits)).softmax(1)
        return weights

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        weights = self._weights(student.logits)
        if self.config.routing == "top":
            weights = F.one_hot(weights.argmax(1), weights.shape[1]).to(weights.dtype)
        self._sums = self._sums + weights.detach().sum(0).float().cpu()
        routed_kl = (weights * self._divergences(self._told(batch), student.logits)).sum(1)
        return self.config.label_weight * label_loss(student.logits, batch) + self.config.teacher_weight * routed_kl

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        mean = self._weights(student.logits).mean(0)
        count = len(mean)
        uneven = -(mean.log() + torch.log(torch.tensor(float(count)))).mean() / count  # KL(uniform || mean) / E
        return {"mst_balance": self.config.balance_weight * uneven}

    def trainable(self) -> Iterable[nn.Parameter]:
        return self._gate.parameters() if len(self._teachers) > 1 else ()

    def extras(self) -> Mapping[str, nn.Module]:
        return {"gate": self._gate} if len(self._teachers) > 1 else {}

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        self._shares, self._sums = self._sums / self._sums.sum().clamp_min(1e-12), torch.zeros_like(self._sums)

    def measures(self) -> dict[str, float]:
        """Share that each teacher had of the last epoch."""
        return {f"share_{number}": float(share) for number, share in enumerate(self._shares, 1)}

    def state_dict(self) -> dict[str, Any]:
        return {"gate": self._gate.state_dict(), "masks": self._masks.state_dict(), "shares": self._shares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._gate.load_state_dict(state["gate"])
        self._masks.load_state_dict(state["masks"])
        self._shares, self._kept = state["shares"], None


def _mask(classes: int) -> nn.Module:
    """Two layers to a share of each logit, nearly 1 at the start."""
    last = nn.Linear(2 * classes, classes)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, _OPEN)
    return nn.Sequential(nn.Linear(classes, 2 * classes), nn.ReLU(), last, nn.Sigmoid())


def _dtype(network: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in network.parameters()), torch.float32)
