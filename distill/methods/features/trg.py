"""TRG: the student keeps the relations between patches of a whole batch's images, or between the words of its texts.

After Zhang et al., "Knowledge Distillation via Token-level Relationship Graph", 2023, arXiv:2306.12442. The paper's
code was not found: the three terms follow notes on the paper, and their weights, the number of neighbours, the kernel's
width and the schedule of tau_g are ours.
"""

# B batch, M sampled tokens, P tokens of an example, D_T and D_S widths

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.features.tokens import is_token, same_tokens
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.training.objective import Moment


class TRGConfig(MethodConfig):
    """Relations between tokens: near ones, all of the batch, and those of one example."""

    name: Literal["trg"] = "trg"
    inner_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.1, 10.0), log=True, description="weight (alpha) of the relations within an example"
    )
    local_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.1, 10.0), log=True, description="weight (beta) of the graph of near tokens"
    )
    global_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.1, 10.0), log=True, description="weight (gamma) of the contrast with all tokens"
    )
    patches: int = Field(4, ge=1, le=64, description="side of the grid of patches of a feature map")
    tokens: int = Field(256, ge=2, le=4096, description="tokens sampled from a batch at most (M); memory goes with M^2")
    neighbours: int = Field(8, ge=1, le=4095, description="nearest tokens that a token has edges to (k)")
    first_temperature: float = Field(
        0.5, gt=0, le=100, description="temperature (tau_g) of the contrast at the start, coarse"
    )
    last_temperature: float = Field(0.1, gt=0, le=100, description="temperature of the contrast at the end, fine")
    direction: Literal["student_teacher", "teacher_student"] = Field(
        "student_teacher", description="order of the graph's KL; student_teacher: KL(student || teacher)"
    )


class TRG(Method):
    """Loss alpha L_inner + beta L_local + gamma L_global on the features, after the paper.

    - A_ij = exp(-|f_i - f_j|^2 / 2 sigma) if i is among j's k nearest, else 0, for each network by itself, sigma its
      median squared distance. L_local is the mean KL of the rows' softmaxes, unmoved by a rotation of either space.
    - L_global is the contrast of each token with the teacher's at its place, against all others, after a Linear.
    - L_inner is the mean squared difference of softmax(F F^T / sqrt D) of each example.
    """

    name: ClassVar[str] = "trg"
    paper: ClassVar[str] = "after Zhang et al. 2023, arXiv:2306.12442"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    reads_features: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        elicitation=("feature",),
        algorithm="divergence",
        ablation={"inner_weight": 0.0, "local_weight": 0.0, "global_weight": 0.0},
        reduces_to=({"name": "kd"},),
        invariant_to=frozenset({"shift"}),
        holds_constant=True,  # the neighbours and sigma
        cost=4.0,
    )
    Config: ClassVar[type[MethodConfig]] = TRGConfig
    config: TRGConfig
    _projection: nn.Linear | None = None
    _progress = 0.0

    def prepare(self, context: Context) -> None:
        few = context.train.batch(torch.zeros(1, dtype=torch.int64), context.device)
        with evaluating(context.student), torch.no_grad():
            student, teacher = look(context.student, few.inputs), context.teacher_view(few)
        own, given = (part.shape[2] for part in same_tokens(student.features, teacher.features, self._side(few)))
        with drawn_from(derive_seed(context.seed, self.name)):
            self._projection = nn.Linear(own, given, bias=False).to(context.device)
        self._progress = 0.0

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        assert self._projection is not None, "prepare() comes before feature()"
        config = self.config
        own, given = same_tokens(precise(student.features), precise(teacher.features.detach()), self._side(batch))
        mask = is_token(batch, own.shape[1])
        chosen = sampled(own.shape[0] * own.shape[1] if mask is None else mask, config.tokens, own.device)
        s, t = own.flatten(0, 1)[chosen], given.flatten(0, 1)[chosen]
        terms = {}
        if config.inner_weight:
            terms["trg_inner"] = config.inner_weight * inner_loss(own, given, mask)
        if config.local_weight:
            terms["trg_local"] = config.local_weight * local_loss(s, t, config.neighbours, config.direction)
        if config.global_weight:
            terms["trg_global"] = config.global_weight * global_loss(self._projection(s), t, self.temperature())
        return terms

    def _side(self, batch: Batch) -> int | None:
        return None if batch.inputs.dim() == 2 else self.config.patches

    def temperature(self) -> float:
        """tau_g now: from the first to the last by equal factors."""
        first, last = self.config.first_temperature, self.config.last_temperature
        return math.exp(math.log(first) + self._progress * math.log(last / first))

    def tick(self, moment: Moment) -> None:
        self._progress = moment.progress

    def trainable(self) -> Iterable[nn.Parameter]:
        return self._projection.parameters() if self._projection is not None and self.config.global_weight else ()

    def extras(self) -> Mapping[str, nn.Module]:
        learns = self._projection is not None and self.config.global_weight
        return {"projection": self._projection} if learns and self._projection is not None else {}

    def state_dict(self) -> dict[str, Any]:
        assert self._projection is not None, "prepare() comes before state_dict()"
        return {"projection": self._projection.state_dict(), "progress": self._progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._projection is not None, "prepare() comes before load_state_dict()"
        self._projection.load_state_dict(state["projection"])
        self._progress = state["progress"]


def sampled(among: int | Tensor, most: int, device: torch.device) -> Tensor:
    """Draw at most `most` positions without replacement, of a number of them or of those in a mask."""
    places = torch.arange(among, device=device) if isinstance(among, int) else torch.nonzero(among.flatten()).flatten()
    return places[torch.randperm(len(places), device="cpu")[:most].to(device)]


def graph(tokens: Tensor, neighbours: int) -> Tensor:
    """Return A [M, M]: exp(-|f_i - f_j|^2 / 2 sigma) where i is one of the k nearest to j, not j itself; else 0."""
    products = tokens @ tokens.T
    norms = products.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * products).clamp_min(0)
    with torch.no_grad():
        others = ~torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
        sigma = squared[others].median().clamp_min(1e-12)
        ranked = squared.masked_fill(~others, torch.inf)
        nearest = ranked.topk(min(neighbours, len(tokens) - 1), dim=0, largest=False).indices
        near = torch.zeros_like(others).scatter(0, nearest, True)
    return torch.where(near, (-squared / (2 * sigma)).exp(), 0.0)


def local_loss(own: Tensor, given: Tensor, neighbours: int, direction: str = "student_teacher") -> Tensor:
    """Mean over tokens of the KL between the rows' softmaxes of both graphs; tokens [M, D_S] and [M, D_T]."""
    if len(own) < 2:
        return own.sum() * 0
    s, t = (graph(tokens, neighbours).log_softmax(1) for tokens in (own, given))
    first, second = (s, t) if direction == "student_teacher" else (t, s)
    return F.kl_div(second, first, reduction="batchmean", log_target=True)


def global_loss(own: Tensor, given: Tensor, temperature: float) -> Tensor:
    """Mean over tokens of -log softmax_j(cos(s_i, t_j) / tau) at j = i; tokens [M, D]."""
    cosines = F.normalize(own, dim=1) @ F.normalize(given, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(own), device=own.device))


def inner_loss(own: Tensor, given: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of softmax(F F^T / sqrt D) of each example's tokens [B, P, D]; padding is left out."""
    maps = []
    for tokens in (own, given):
        scores = tokens @ tokens.transpose(1, 2) / math.sqrt(tokens.shape[2])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], torch.finfo(scores.dtype).min)
        maps.append(scores.softmax(2))
    squared = (maps[0] - maps[1]).square()
    if mask is None:
        return squared.mean()
    both = (mask[:, :, None] & mask[:, None, :]).to(squared.dtype)
    return (squared * both).sum() / both.sum().clamp_min(1)
