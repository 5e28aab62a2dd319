"""DBiLD: the student keeps the differences between the few logits that matter, to the teacher and to itself.

Switch-KD, 2026, arXiv:2604.14629, whose text could not be had: its loss after a transcription, as BiLD's pairs
(Li et al. 2024, arXiv:2406.13555, read in the authors' code), a number of logits found at the knee of the sorted
logits, and the reverse KL. Ours are how the knee is found (Satopaa et al. 2011: farthest below the chord) and its
bounds. The switch, the student's eyes with the teacher's mouth, needs two-part models: `distill/switch.py`.

The loss knows differences alone, so a shift of the student's logits changes nothing, but their size counts. Two classes
have one difference, and a softmax of one number is 1 whatever it is: the loss is 0, hence `min_classes` 3.
"""

# N examples, K classes, M selected classes, P pairs of them

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import kl
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import tunable
from edgestill.pipeline.networks.network import View

_FEWEST = 3  # selected classes: two have one difference, and its softmax is 1
_MOST = 64  # of a knee, as pairs grow with the square


class DBiLDConfig(MethodConfig):
    """Differences between the largest logits of teacher and student, each leading in turn."""

    name: Literal["dbild"] = "dbild"
    top: Literal["knee"] | Annotated[int, Field(ge=_FEWEST)] = Field(
        "knee", description="number of the leader's largest logits to compare; knee: where its sorted logits level off"
    )
    direction: Literal["reverse", "forward"] = Field(
        "reverse", description="direction of the KL: reverse, KL(student || teacher), or forward, as BiLD has it"
    )
    temperature: float = tunable(
        3.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="temperature (T) of the softmax over differences"
    )
    distill_weight: float = tunable(
        1.0,
        ge=0,
        le=1e4,
        tune=(0.1, 20.0),
        log=True,
        description="weight (b) of distillation; labels weigh 1; unused if a method fills `weight`",
    )


class DBiLD(Method):
    """Loss CE + b sum over both leaders of KL(softmax(d_s / T) || softmax(d_t / T)).

    d are the differences of all pairs of the leader's largest logits. `top: 8` with `direction: forward` is BiLD.
    """

    name: ClassVar[str] = "dbild"
    paper: ClassVar[str] = "after Switch-KD 2026, arXiv:2604.14629, and BiLD, Li et al. 2024, arXiv:2406.13555"
    fills: ClassVar[frozenset[Slot]] = frozenset({"divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    min_classes: ClassVar[int] = _FEWEST
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        algorithm="ranking",
        ablation={"distill_weight": 0.0},
        reduces_to=({"name": "none"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        suits=lambda about: about.classes > 4,
    )
    Config: ClassVar[type[MethodConfig]] = DBiLDConfig
    config: DBiLDConfig

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature))

    def divergence(self, target: Tensor, student: View) -> Tensor:
        """Compare log-probabilities, whose differences are those of the logits, divided by T."""
        t = target.clamp_min(torch.finfo(target.dtype).tiny).log()
        s = student.logits / self.config.temperature
        led = (self._led(leader, t, s) for leader in (t, s.detach()))
        return torch.stack(list(led)).sum(0)

    def usual_weight(self) -> tuple[float, float]:
        return 1.0, self.config.distill_weight

    def _led(self, leader: Tensor, t: Tensor, s: Tensor) -> Tensor:
        ordered, places = leader.sort(dim=1, descending=True, stable=True)
        top = self.config.top
        count = knees(ordered) if top == "knee" else torch.full_like(places[:, 0], top)
        count = count.clamp(_FEWEST, leader.shape[1])
        places = places[:, : int(count.max())]
        log_t, log_s = (differences(logits.gather(1, places), count) for logits in (t, s))
        return kl(log_t, log_s) if self.config.direction == "forward" else kl(log_s, log_t)


def knees(ordered: Tensor) -> Tensor:
    """Number of logits up to the knee of falling ones [N, K]: the place farthest below the chord from first to last."""
    first, last = ordered[:, :1], ordered[:, -1:]
    height = (ordered - last) / (first - last).clamp_min(1e-12)
    chord = torch.linspace(1, 0, ordered.shape[1], device=ordered.device, dtype=ordered.dtype)
    return ((chord - height).argmax(1) + 1).clamp_max(_MOST)


def differences(logits: Tensor, count: Tensor) -> Tensor:
    """Log-softmax [N, P] of the differences of all pairs among each row's first `count` logits [N, M].

    A pair beyond a row's count has probability 0, a large negative number for its logarithm.
    """
    first, second = torch.triu_indices(logits.shape[1], logits.shape[1], offset=1, device=logits.device)
    is_in = second < count[:, None]
    gaps = (logits[:, first] - logits[:, second]).masked_fill(~is_in, -1e4)
    return gaps.log_softmax(1)
