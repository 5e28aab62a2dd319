"""Swing: the teacher says less, and less exactly, of private tokens and of rare examples that it may have memorised.

After Li, Zhu and others, "Swing Distillation: A Privacy-Preserving Knowledge Distillation Framework", 2022,
arXiv:2212.08349, which warms the temperature of private tokens and adds noise to their targets. For a language model
`rarity: pattern` is the paper's: tokens that a regular expression finds are private. Its score has no like in
classification; the rarity of an example, and the form of temperature and noise, are ours.

The noise of an example is drawn once, by seed: noise drawn afresh in every epoch would average out, and the student
would learn the answer behind it. The student is compared at `temperature`, never at the example's own: dividing both
sides by the same number would hide nothing. No guarantee is claimed; this is no differential privacy.
"""

# N examples, K classes, D embedding width

import itertools
import re
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.input_kind.lm import MARKS, answered
from edgestill.pipeline.networks.network import View, evaluating, logits_at, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part

_NEIGHBOURS = 5
_AT_ONCE = 1024  # examples compared with all others


class SwingConfig(MethodConfig):
    """Temperature and noise of each example's target, by its rarity."""

    name: Literal["swing"] = "swing"
    rarity: Literal["neighbours", "doubt", "pattern"] = Field(
        "neighbours",
        description="score of an example; neighbours: distance to its nearest in the teacher's embedding; "
        "doubt: the teacher's probability of other classes than the label; pattern: 1 of tokens within a match",
    )
    pattern: str = Field(
        r"\d{4,}", max_length=1000, description="regular expression for the private parts of texts; rarity pattern"
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

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return pattern


class Swing(Method):
    """Target softmax((t_i + sigma r_i e_i) / (T_min + r_i spread)), with the noise e_i drawn once an example.

    r_i in [0, 1] is the rank of example i's rarity to the power of `sharpness`, or 1 of a token within a match of
    `pattern`. Labels are not softened: where they are what must not leak, give them no weight (`distill_weight` 1).
    """

    name: ClassVar[str] = "swing"
    paper: ClassVar[str] = "after Swing Distillation, Li et al. 2022, arXiv:2212.08349"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target"})
    takes_rows: ClassVar[bool] = True
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
    def binds_rows(self) -> bool:
        return self.config.rarity == "pattern"

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding"} if self.config.rarity == "neighbours" else ())

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature, distill_weight=self.config.distill_weight))

    def check(self, task: Task, train: ImageSplit) -> None:
        if self.config.rarity == "pattern" and not isinstance(train, Sequences):
            raise ConfigError(["swing.rarity pattern is for language models; set swing.rarity to neighbours or doubt"])

    def prepare(self, context: Context) -> None:
        self._shape = context.train.answers, context.task.num_classes
        self._device = context.device
        self._set(torch.zeros(self._shape[0]), derive_seed(context.seed, self.name) % 2**32)

    def study(self, context: Context) -> None:
        """Score every training example by the teacher's view of it."""
        if self.config.rarity == "pattern":
            self._set(_matches(context, self.config.pattern), self._seed)
            return
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
    views = (look(context.teacher, batch.inputs, batch.rows) for batch in context.train.batches(512, context.device))
    return neighbour_distances(torch.cat([view.embedding.float() for view in views]))


def _doubts(context: Context) -> Tensor:
    """1 - p(label), [N], or of the likeliest class where there is no label."""
    parts = []
    for batch in context.train.batches(512, context.device):
        logits = logits_at(context.teacher, batch.inputs, batch.rows).float()
        chosen = torch.where(batch.targets == UNLABELLED, logits.argmax(1), batch.targets)
        parts.append(1 - logits.softmax(1).gather(1, chosen[:, None])[:, 0])
    return torch.cat(parts)


def _matches(context: Context, pattern: str) -> Tensor:
    """1 of the answers' tokens that lie in a match of the pattern in their text, else 0, [N]."""
    names = ["" if mark in MARKS else mark.replace(_BLANK, " ") for mark in context.task.labels]
    found: list[float] = []
    assert isinstance(context.train.images, Tensor)
    for ids, is_answer in zip(context.train.images.cpu(), answered(context.train.images.cpu()), strict=True):
        parts = [names[i] for i in ids.tolist()]
        ends = list(itertools.accumulate(map(len, parts)))
        spans = [match.span() for match in re.finditer(pattern, "".join(parts))]
        for place in (is_answer.nonzero()[:, 0] + 1).tolist():
            start, end = ends[place] - len(parts[place]), ends[place]
            found.append(float(any(start < last and first < end for first, last in spans)))
    return torch.tensor(found)


_BLANK = "\N{OPEN BOX}"  # stands for a blank in the names of tokens
