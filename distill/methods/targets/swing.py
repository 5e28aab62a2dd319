"""Swing for classifiers: the teacher says less, and less exactly, of the rare examples that it may have memorised.

After Li, Zhu and others, "Swing Distillation: A Privacy-Preserving Knowledge Distillation Framework", 2022,
arXiv:2212.08349, which warms the temperature of private tokens and adds noise to their targets. Its score of a token's
privacy has no like in classification; the rarity of an example, and the form of temperature and noise, are ours.

The noise of an example is drawn once, by seed: noise drawn afresh in every epoch would average out, and the student
would learn the answer behind it. The student is compared at `temperature`, never at the example's own: dividing both
sides by the same number would hide nothing. No guarantee is claimed; this is no differential privacy.
"""

# N examples, K classes, D embedding width

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.teachers.teacher import Part

_NEIGHBOURS = 5
_AT_ONCE = 1024  # examples compared with all others


class SwingConfig(MethodConfig):
    """Temperature and noise of each example's target, by its rarity."""

    name: Literal["swing"] = "swing"
    rarity: Literal["neighbours", "doubt"] = Field(
        "neighbours",
        description="score of an example; neighbours: distance to its nearest in the teacher's embedding; "
        "doubt: the teacher's probability of other classes than the label",
    )
    sharpness: float = Field(
        4.0, ge=0, le=100, description="power of the rarity's rank in [0, 1]; high: only the rarest are treated"
    )
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T_min) of student and common examples"
    )
    spread: float = tunable(
        16.0,
        ge=0,
        le=1000,
        tune=(1.0, 64.0),
        log=True,
        description="temperature that the rarest example's target has beyond T_min",
    )
    noise: float = tunable(
        1.0, ge=0, le=1000, tune=(0.0, 4.0), description="deviation (sigma) of the noise on the rarest example's logits"
    )
    distill_weight: float = distillation_share(0.9)


class Swing(Method):
    """Target softmax((t_i + sigma r_i e_i) / (T_min + r_i spread)), with the noise e_i drawn once an example.

    r_i in [0, 1] is the rank of example i's rarity to the power of `sharpness`. Labels are not softened: where they are
    what must not leak, give them no weight (`distill_weight` 1).
    """

    name: ClassVar[str] = "swing"
    paper: ClassVar[str] = "after Swing Distillation, Li et al. 2022, arXiv:2212.08349"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target"})
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        ablation={"spread": 0.0, "noise": 0.0},
        reduces_to=({"name": "kd", "temperature": 4.0, "distill_weight": 0.9},),
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = SwingConfig
    config: SwingConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding"} if self.config.rarity == "neighbours" else ())

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature, distill_weight=self.config.distill_weight))

    def prepare(self, context: Context) -> None:
        self._shape = len(context.train), context.task.num_classes
        self._device = context.device
        self._set(torch.zeros(self._shape[0]), derive_seed(context.seed, self.name) % 2**32)

    def study(self, context: Context) -> None:
        """Score every training example by the teacher's view of it."""
        with evaluating(context.teacher), torch.no_grad():
            scores = _distances(context) if self.config.rarity == "neighbours" else _doubts(context)
        self._set(ranks(scores) ** self.config.sharpness, self._seed)

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        r = batch.of_examples(self._rarity)[:, None]
        logits = teacher.logits + self.config.noise * r * self._noise_of(batch)
        return (logits / (self.config.temperature + r * self.config.spread)).softmax(1)

    def measures(self) -> dict[str, float]:
        temperatures = self.config.temperature + self._rarity * self.config.spread
        return {"mean_temperature": float(temperatures.mean()), "highest_temperature": float(temperatures.max())}

    def state_dict(self) -> dict[str, Any]:
        return {"rarity": self._rarity, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._set(state["rarity"], state["seed"])

    def _set(self, rarity: Tensor, seed: int) -> None:
        """Keep the rarities, and draw the noise of all examples."""
        self._rarity, self._seed = rarity.to(self._device), seed
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(self._shape, generator=generator).to(self._device)

    def _noise_of(self, batch: Batch) -> Tensor:
        """Noise [B, K] of a batch; a mixed example has that of both, by their shares."""
        if batch.mixed is None:
            return self._noise[batch.index]
        share = batch.mixed.share[:, None]
        pairs = self._noise[batch.mixed.index]
        return share * pairs[0] + (1 - share) * pairs[1]


def ranks(scores: Tensor) -> Tensor:
    """Rank of each score [N] in [0, 1], the highest 1; equal scores share a rank."""
    ordered = scores.sort().values
    first, after = (torch.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (first + after - 1) / 2 / max(1, len(scores) - 1)


def neighbour_distances(embeddings: Tensor, neighbours: int = _NEIGHBOURS) -> Tensor:
    """Mean cosine distance [N] of each embedding [N, D] to its nearest others."""
    unit = F.normalize(embeddings.float(), dim=1)
    count = min(neighbours, len(unit) - 1)
    parts = []
    for start in range(0, len(unit), _AT_ONCE):
        rows = unit[start : start + _AT_ONCE]
        likeness = rows @ unit.T
        likeness[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -torch.inf  # not itself
        parts.append(1 - likeness.topk(count, dim=1).values.mean(1))
    return torch.cat(parts)


def _distances(context: Context) -> Tensor:
    views = (look(context.teacher, batch.inputs) for batch in context.train.batches(512, context.device))
    return neighbour_distances(torch.cat([view.embedding.float() for view in views]))


def _doubts(context: Context) -> Tensor:
    """1 - p(label), [N], or of the likeliest class where there is no label."""
    split: ImageSplit = context.train
    logits = torch.cat([context.teacher(batch.inputs).float() for batch in split.batches(512, context.device)])
    targets = split.targets.to(logits.device)
    chosen = torch.where(targets == UNLABELLED, logits.argmax(1), targets)
    return 1 - logits.softmax(1).gather(1, chosen[:, None])[:, 0]
