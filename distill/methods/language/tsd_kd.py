"""TSD-KD: a student learns most at the tokens that it is less sure of than its teacher.

After TSD-KD, ICLR 2026, and the authors' code, kmswin1/TSD-KD. Three terms, on the student's own samples
(driver `rollout`) or on the data, with H the entropy and t, s the probabilities at a token:

- direct: sigmoid(H(s) - H(t)) JSD_beta(t, s), the gate held constant;
- indirect: the student's likeliest k tokens in the teacher's order, by the Plackett-Luce likelihood of that order under
  the student, on each answer's opening: the tokens until its summed entropy reaches a share of the answer's;
- entropy: the mean H(s) of the tokens with the highest, which is lowered.

Where the paper's intent and the released code differ, this follows the intent: the likelihood's denominators are over
what is still to be ranked (over what is ranked already, training reverses the order); the tokens of the highest entropy
are a tenth (there nine tenths); an opening is each answer's own (there the whole batch's).
"""

# R rows of logits, V token ids, k ranked tokens

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import kl, precise
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.targets.divergence import mixed
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View


class TSDKDConfig(MethodConfig):
    """Generalised JSD with a gate, a ranking of the student's best tokens, and less entropy."""

    name: Literal["tsd_kd"] = "tsd_kd"
    beta: float = tunable(
        0.9, gt=0, le=0.999, tune=(0.1, 0.95), description="teacher's share (beta) of the mixture in the direct term"
    )
    gate: bool = Field(True, description="weigh each token by sigmoid(H(student) - H(teacher))")
    indirect_weight: float = tunable(
        0.1, ge=0, le=100, tune=(0.02, 0.5), log=True, description="weight of the ranking of the student's best tokens"
    )
    ranked: int = Field(10, ge=2, le=1000, description="number (k) of the student's likeliest tokens that are ranked")
    opening: float = Field(
        0.1, gt=0, le=1, description="share of an answer's summed entropy that its opening reaches, which is ranked"
    )
    entropy_weight: float = tunable(
        1.0, ge=0, le=100, tune=(0.1, 2.0), log=True, description="weight of the student's entropy"
    )
    uncertain: float = Field(
        0.1, gt=0, le=1, description="share of the tokens whose entropy is lowered, those of the highest"
    )
    distill_weight: float = distillation_share(1.0)


class TSDKD(Method):
    """Loss (1 - b) CE + b gate JSD_beta(t, s) + l_i indirect + l_e entropy, at temperature 1."""

    name: ClassVar[str] = "tsd_kd"
    paper: ClassVar[str] = "TSD-KD, ICLR 2026"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence", "weight", "feature"})
    takes_rows: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("feedback",),
        granularity="token",
        ablation={"gate": False, "indirect_weight": 0.0, "entropy_weight": 0.0},
        reduces_to=({"name": "divergence", "kind": "js", "beta": 0.9, "temperature": 1.0, "distill_weight": 1.0},),
        invariant_to=frozenset({"shift"}),
        cost=3.0,
    )
    Config: ClassVar[type[MethodConfig]] = TSDKDConfig
    config: TSDKDConfig

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return precise(teacher.logits).softmax(1)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        t, s = target.log(), precise(student.logits).log_softmax(1)
        m = mixed(t, s, self.config.beta)
        return self.config.beta * kl(t, m) + (1 - self.config.beta) * kl(s, m)

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        share = self.config.distill_weight
        gate = gate_of(student.logits, teacher.logits) if self.config.gate else 1.0
        return 1 - share, share * gate

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        config, entropy = self.config, entropy_of(student.logits)
        found: dict[str, Tensor] = {}
        if config.indirect_weight:
            ranked = ranking_loss(student.logits, teacher.logits, config.ranked)
            is_opening = opening_of(entropy.detach(), _answer_of(batch, entropy), config.opening)
            found["indirect"] = config.indirect_weight * ranked[is_opening].mean()
        if config.entropy_weight:
            found["entropy"] = (
                config.entropy_weight * entropy[most_uncertain(entropy.detach(), config.uncertain)].mean()
            )
        return found


def entropy_of(logits: Tensor) -> Tensor:
    """Entropy of the softmax, [R], in nats."""
    log_p = precise(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def gate_of(student: Tensor, teacher: Tensor) -> Tensor:
    """Return sigmoid(H(s) - H(t)), [R]: 1/2 where both are as sure, more where the student is less so."""
    return (entropy_of(student) - entropy_of(teacher)).sigmoid()


def ranking_loss(student: Tensor, teacher: Tensor, count: int) -> Tensor:
    """Plackett-Luce loss of the student's likeliest tokens in the teacher's order, [R], a mean over the ranks.

    -log of prod_i exp(s_i) / sum_{j >= i} exp(s_j), i the ranks from the teacher's first. The tokens are a constant.
    """
    chosen = student.detach().topk(min(count, student.shape[1]), dim=1).indices
    order = chosen.gather(1, teacher.detach().gather(1, chosen).argsort(1, descending=True))
    scores = precise(student).gather(1, order)
    left = scores.flip(1).logcumsumexp(1).flip(1)  # over what is still to be ranked
    return (left - scores).mean(1)


def opening_of(entropy: Tensor, answer: Tensor, share: float) -> Tensor:
    """Mark each answer's opening, [R] bool: the tokens before which its summed entropy is below the share of all of it.

    Args:
        entropy: [R], of the answers' tokens in order.
        answer: [R] number of each token's answer, ascending.
    """
    each = entropy.double()
    whole = torch.zeros(int(answer.max()) + 1, dtype=torch.float64, device=each.device).index_add(0, answer, each)
    before = each.cumsum(0) - each - (whole.cumsum(0) - whole)[answer]
    return before < share * whole[answer].clamp_min(1e-12)


def most_uncertain(entropy: Tensor, share: float) -> Tensor:
    """Mark the tokens whose entropy is at or above the quantile 1 - share of the step's, [R] bool."""
    return entropy >= torch.quantile(entropy.float(), 1 - share)


def _answer_of(batch: Batch, like: Tensor) -> Tensor:
    """Number of each row's answer; of examples with one row each, their own."""
    return torch.arange(len(like), device=like.device) if batch.rows is None else batch.rows[:, 0]
