"""Mixup in KD: the student learns from mixed images, to each of which the teacher answers itself.

Choi, Jeon, Shukla and Turaga, "Understanding the Role of Mixup in Knowledge Distillation: An Empirical Study", WACV
2023, arXiv:2211.03946. Follows the authors' code, but for the share of unmixed images: the code draws these with
replacement, so that its "0.9" leaves 59.3 % unmixed. Here the share is exact, by a permutation; the paper's amounts may
mean either.

The paper's recipe is `[mixup_kd, mixstd]`: `mixstd` divides the logits by their own standard deviation. The study's
figures are among the measures: a teacher trained with mixup is smoother, and makes worse students.
"""

# N examples, K classes, D embedding width

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.hard.random_affine import refuse_text
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.mixing import mixed
from edgestill.pipeline.data.splits import Batch, ImageSplit, channels_last
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import evaluating, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part


class MixupKDConfig(MethodConfig):
    """Images mixed with others of the batch, which the teacher sees too."""

    name: Literal["mixup_kd"] = "mixup_kd"
    alpha: float = tunable(
        1.0, gt=0, le=100, tune=(0.1, 2.0), log=True, description="shares are drawn from Beta(alpha, alpha)"
    )
    unmixed: float = Field(0.0, ge=0, le=1, description="share of each batch that is left unmixed (partial mixup)")


class MixupKD(Method):
    """Inputs lam x_a + (1 - lam) x_b, lam ~ Beta(alpha, alpha) for each image; labels are mixed likewise.

    The teacher's answers to mixed images cannot be kept. The measures are figures of the reference split: `max_prob`,
    the mean of the highest probability, and `dispersion`, the mean distance of the embeddings, at length 1, from their
    class's mean; the second is ours, as the paper's was not at hand.
    """

    name: ClassVar[str] = "mixup_kd"
    paper: ClassVar[str] = "Choi, Jeon, Shukla, Turaga 2023, arXiv:2211.03946"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("expansion",),
        ablation={"unmixed": 1.0},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        suits=lambda about: about.kind == "image",
    )
    Config: ClassVar[type[MethodConfig]] = MixupKDConfig
    config: MixupKDConfig
    _context: Context | None = None

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    def check(self, task: Task, train: ImageSplit) -> None:
        refuse_text(self.name, task)

    def prepare(self, context: Context) -> None:
        self._context = context

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        if batch.mixed is not None:
            raise ConfigError(
                [f"method {self.name!r} mixes images that data.augment.mixup or cutmix mixed already; leave one out"]
            )
        found = mixed(batch, AugmentConfig(mixup=self.config.alpha), generator)
        count = len(batch.targets)
        left = torch.zeros(count, dtype=torch.bool)
        left[torch.randperm(count, generator=generator)[: round(self.config.unmixed * count)]] = True
        if bool(left.all()):
            return batch
        return unmixed(found, batch, left.to(batch.targets.device))

    def measures(self) -> dict[str, float]:
        assert self._context is not None, "prepare() comes before measures()"
        context = self._context
        networks = {"teacher": context.teacher, "student": context.student}
        answers = {"teacher": context.teacher, "student": context.deployable()}
        found = {}
        for name, network in networks.items():
            probability, dispersion = smoothness(network, answers[name], context.reference, context.device)
            found[f"{name}_max_prob"] = probability
            if dispersion is not None:
                found[f"{name}_dispersion"] = dispersion
        return found


def unmixed(found: Batch, plain: Batch, left: Tensor) -> Batch:
    """Put the examples of a mask [N] back as they were; the kept answers to them hold again."""
    assert found.mixed is not None
    whose = found.mixed
    mixes = whose._replace(
        targets=torch.where(left, plain.targets, whose.targets),
        index=torch.where(left, plain.index, whose.index),
        share=torch.where(left, torch.ones_like(whose.share), whose.share),
    )
    inputs = torch.where(left[:, None, None, None], plain.inputs, found.inputs)
    weight = plain.weight if plain.weight is None else torch.where(left, plain.weight, found.weight)  # type: ignore[arg-type]
    altered = ~left if plain.altered is None else ~left | plain.altered
    return found._replace(inputs=channels_last(inputs), mixed=mixes, weight=weight, altered=altered, view=plain.view)


def smoothness(
    network: nn.Module, answers: nn.Module, split: ImageSplit, device: torch.device
) -> tuple[float, float | None]:
    """Return the mean highest probability and the dispersion of the embeddings, None if the network gives none."""
    highest, embeddings = [], []
    with evaluating(network, answers), torch.no_grad():
        for batch in split.batches(512, device):
            highest.append(answers(batch.inputs).float().softmax(1).amax(1).cpu())
            embeddings.append(look(network, batch.inputs).embedding.float().cpu())
    embedding = torch.cat(embeddings)
    known = embedding.shape[1] > 0 and bool(embedding.isfinite().all())
    return float(torch.cat(highest).mean()), dispersion(embedding, split.targets.cpu()) if known else None


def dispersion(embedding: Tensor, targets: Tensor) -> float:
    """Mean distance of embeddings [N, D], at length 1, from the mean of their class; without a label, a class too."""
    unit = F.normalize(embedding.double(), dim=1)
    distances = [(own - own.mean(0)).norm(dim=1) for c in torch.unique(targets) for own in [unit[targets == c]]]
    return float(torch.cat(distances).mean())
