"""KD^3: a student made of an unlabelled pool from elsewhere, with the teacher's classifier as its own.

Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images", ICCV 2023,
arXiv:2307.11469. Follows the authors' code, which is told apart where we depart from it: the clock of the votes counts
the share of the training that is done, in the place of epochs of 160; student and batch norm see x and x' in one batch;
a student of tokens gives its pooled embedding to the transfer block, as a map of one position.

The pool is the examples without a label (`data.unlabelled`), of which each epoch keeps those that teacher and student
are sure of. Labelled examples beside them are all kept, and without a pool all examples are one. Labels teach nothing,
unless `label_weight` says so.

Trap: the transfer block and the teacher's classifier ship, so that the exported graph is not the plain student's. Set
`teacher_width` for a whole run, in which the student's size is counted before there is a teacher.
"""

# N examples, K classes, D_T width of the teacher's embedding, H W height and width

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.data.kd3.pool import mixed_moments, nt_xent, selected, teachers_share
from edgestill.distill.methods.data.kd3.transfer import TransferHead, Transferred, as_map, feature_width, same_size
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.hard.augmentor import with_augmented
from edgestill.distill.methods.hard.random_affine import refuse_text
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import Classifier, View, evaluating
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.label_loss import label_loss
from edgestill.pipeline.training.objective import Moment


class KD3Config(MethodConfig):
    """Selection from a pool, the teacher's features and classifier, and contrast with images of other moments."""

    name: Literal["kd3"] = "kd3"
    contrast_weight: float = tunable(
        0.001, ge=0, le=100, tune=(1e-4, 0.1), log=True, description="weight of the contrast of both networks"
    )
    label_weight: float = Field(0.0, ge=0, le=1e4, description="weight of the labels of the examples that have one")
    selects: bool = Field(True, description="keep only the examples of the pool that both are sure of, by epoch")
    contrast_temperature: float = Field(0.3, gt=0, le=100, description="temperature of the contrast")
    mix_alpha: float = Field(0.1, gt=0, le=100, description="shares of the moments are drawn from Beta(alpha, alpha)")
    codec_width: int = Field(128, ge=1, le=65536, description="width of the codecs of the contrast")
    teacher_width: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="width of the teacher's embedding; null: the teacher's own, where it is at hand",
    )


class KD3(Method):
    """Loss mean_n w_n (z_S - f_T)^2 + c (NTXent(g_S e_S, g_S e_S') + NTXent(g_T e_T, g_T e_T')).

    f_T is the teacher's last map and z_S the student's behind a transfer block, w_n = sigmoid |s_hat - t|_2, and s_hat
    the teacher's classifier on the mean of z_S. x' is x with the moments of its pixels mixed with another image's. The
    pool's examples are kept where the highest probability of the vote a t + (1 - a) s_hat exceeds
    0.95 beta_c / (2 - beta_c), with beta_c the votes for class c over those for the commonest class.
    """

    name: ClassVar[str] = "kd3"
    paper: ClassVar[str] = "Tang et al. 2023, arXiv:2307.11469"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data", "head", "objective", "feature"})
    reads_features: ClassVar[bool] = True
    studies_teacher: ClassVar[bool] = True
    ships_layers: ClassVar[bool] = True
    to_shrink: ClassVar[str] = "take a teacher of a narrower embedding"
    facts: ClassVar[Facts | None] = Facts(
        evidence="code", elicitation=("curation", "feature"), changes_graph=True, cost=4.0
    )
    Config: ClassVar[type[MethodConfig]] = KD3Config
    config: KD3Config
    _head: "TransferHead | None" = None

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._codecs = nn.ModuleDict()
        self._progress, self._kept = 0.0, 1.0
        self._map: Tensor | None = None  # z_S of this step

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"features", "embedding", "classifier", "inputs"})

    def check(self, task: Task, train: ImageSplit) -> None:
        refuse_text(self.name, task)

    def prepare(self, context: Context) -> None:
        self._context = context
        self._pool = torch.nonzero(context.train.targets.cpu() == UNLABELLED).flatten()
        if not len(self._pool):
            self._pool = torch.arange(len(context.train))
        own, given = (embedding_width(network, context) for network in (context.student, context.teacher))
        if self.config.teacher_width not in (None, given):
            raise ConfigError([f"kd3.teacher_width is {self.config.teacher_width}; this teacher's is {given}"])
        classifier = cast(Classifier, context.teacher).get_classifier()
        assert isinstance(classifier, nn.Linear)
        with drawn_from(derive_seed(context.seed, self.name)):
            head = TransferHead(feature_width(context.student), given, context.task.num_classes)
            codecs = {
                "student": nn.Linear(own, self.config.codec_width),
                "teacher": nn.Linear(given, self.config.codec_width),
            }
        head.classifier = copy.deepcopy(classifier).requires_grad_(False)
        self._head, self._codecs = head.to(context.device), nn.ModuleDict(codecs).to(context.device)

    def study(self, context: Context) -> None:
        with torch.no_grad():
            parts = [
                context.teacher_view(context.train.batch(few.to(context.device), context.device)._replace(view=None))
                for few in torch.split(self._pool, 512)
            ]
        self._told = torch.cat([part.logits.float().cpu() for part in parts])

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        every = torch.arange(len(self._context.train))
        if self.config.selects:
            kept = selected(self._votes())
            self._kept = float(kept.float().mean())
            left = torch.ones(len(every), dtype=torch.bool)
            left[self._pool[~kept]] = False
            every = every[left] if int(left.sum()) > 1 else every  # an epoch without examples is none
        return every[torch.randperm(len(every), generator=generator)]

    def _votes(self) -> Tensor:
        """a t + (1 - a) s_hat of the pool, [N, K]."""
        student, context = self._context.deployable(), self._context
        with evaluating(student), torch.no_grad():
            said = [
                student(context.train.batch(few.to(context.device), context.device).inputs).float().cpu()
                for few in torch.split(self._pool, 512)
            ]
        share = teachers_share(self._progress)
        return share * self._told + (1 - share) * torch.cat(said)

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        return with_augmented(batch, mixed_moments(batch.inputs, self.config.mix_alpha, generator), 0.0)

    def head_of(self, student: View) -> Tensor:
        assert self._head is not None, "prepare() comes before head_of()"
        self._head.train(self._context.student.training)
        self._map = self._head.transfer(as_map(student.features, student.embedding))
        return self._head.answer(self._map)

    def head(self, embedding: Tensor) -> Tensor:
        assert self._head is not None, "prepare() comes before head()"
        return self._head.answer(self._head.transfer(embedding[:, :, None, None]))

    def class_logits(self, logits: Tensor) -> Tensor:
        return logits

    def deployable(self, student: nn.Module) -> nn.Module:
        if self._head is not None:
            return Transferred(student, self._head)
        if self.config.teacher_width is None:
            raise ConfigError(
                [
                    "kd3.teacher_width is not set: a student's size with the teacher's classifier depends on the width "
                    "of the teacher's embedding, and no teacher is at hand here"
                ]
            )
        classes = cast(nn.Linear, cast(Classifier, student).get_classifier()).out_features
        return Transferred(student, TransferHead(feature_width(student), self.config.teacher_width, classes))

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        assert self._map is not None, "head_of() comes before objective()"
        own, self._map = self._map.float(), None
        given = as_map(teacher.features, teacher.embedding).detach()
        own, given = same_size(own, given)
        weights = (student.logits - teacher.logits).detach().norm(dim=1).sigmoid()
        losses: Tensor = weights * (own - given).square().flatten(1).mean(1)
        if self.config.label_weight:
            losses = losses + self.config.label_weight * label_loss(student.logits, batch)
        return losses

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        if not self.config.contrast_weight:
            return {}
        sides = {"student": student.embedding, "teacher": teacher.embedding.detach()}
        losses = []
        for name, embedding in sides.items():
            said = self._codecs[name](embedding)
            half = len(said) // 2
            losses.append(nt_xent(said[:half], said[half:], self.config.contrast_temperature))
        return {"kd3_contrast": self.config.contrast_weight * torch.stack(losses).sum()}

    def tick(self, moment: Moment) -> None:
        self._progress = moment.progress

    def measures(self) -> dict[str, float]:
        """Share of the pool that the last epoch kept."""
        return {"kept": self._kept}

    def trainable(self) -> Iterable[nn.Parameter]:
        codecs = [*self._codecs.parameters()] if self.config.contrast_weight else []
        return [] if self._head is None else [*self._head.transfer.parameters(), *codecs]

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._head is None else {"transfer": self._head.transfer} | dict(self._codecs.items())

    def state_dict(self) -> dict[str, Any]:
        assert self._head is not None, "prepare() comes before state_dict()"
        own = {"head": self._head.state_dict(), "codecs": self._codecs.state_dict(), "told": self._told}
        return own | {"progress": self._progress, "kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._head is not None, "prepare() comes before load_state_dict()"
        self._head.load_state_dict(state["head"])
        self._codecs.load_state_dict(state["codecs"])
        self._told, self._progress, self._kept = state["told"].cpu(), state["progress"], state["kept"]
