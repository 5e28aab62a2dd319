"""BD-KD's balanced divergence: forward and reverse KL, weighed example by example by who is surer.

After Amara, Meyer, Zhang, Zhou and others, "BD-KD: Balancing the Divergences for Online Knowledge Distillation", 2022,
arXiv:2212.12965. Its weights could not be had; the form here is ours, after notes on it: both divergences, and the gap
of the two entropies decides which counts for more. Its other half, a teacher that learns too, is `online_teacher`.
"""

# N examples, K classes

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.losses import kl, precise
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.networks.network import View


class BDKDConfig(MethodConfig):
    """Forward and reverse KL, balanced by the entropies of teacher and student."""

    name: Literal["bd_kd"] = "bd_kd"
    balance: float = tunable(
        0.5,
        ge=-1,
        le=1,
        tune=(0.0, 1.0),
        description="tilt (delta) to forward KL where the student is surer; 0: both alike",
    )
    gap: Literal["sign", "tanh"] = Field(
        "sign", description="function of the entropies' gap that the tilt is multiplied with"
    )
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of teacher and student softmax"
    )
    distill_weight: float = distillation_share(0.5)


class BDKD(Method):
    """Loss (1 - b) CE + b T^2 [(1 + d) KL(p_t || p_s) + (1 - d) KL(p_s || p_t)], d = delta sign(H(p_t) - H(p_s)).

    The tilt d carries no gradient. Where the student is surer than the teacher, forward KL counts for more, which
    spreads the student. At delta = 0 it is Jeffreys' divergence.
    """

    name: ClassVar[str] = "bd_kd"
    paper: ClassVar[str] = "after BD-KD, Amara et al. 2022, arXiv:2212.12965"
    fills: ClassVar[frozenset[Slot]] = frozenset({"divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        ablation={"balance": 0.0},
        reduces_to=({"name": "divergence", "kind": "jeffreys", "temperature": 4.0, "distill_weight": 0.5},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = BDKDConfig
    config: BDKDConfig

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature))

    def divergence(self, target: Tensor, student: View) -> Tensor:
        log_t = precise(target).clamp_min(torch.finfo(torch.float32).tiny).log()
        log_s = (precise(student.logits) / self.config.temperature).log_softmax(1)
        d = self.config.balance * self._gap(log_t, log_s.detach())
        return self.config.temperature**2 * ((1 + d) * kl(log_t, log_s) + (1 - d) * kl(log_s, log_t))

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def _gap(self, log_t: Tensor, log_s: Tensor) -> Tensor:
        gap = entropy(log_t) - entropy(log_s)
        return gap.sign() if self.config.gap == "sign" else gap.tanh()


def entropy(log_p: Tensor) -> Tensor:
    """Entropy of log-probabilities [N, K] in nats, [N]."""
    found: Tensor = torch.special.entr(log_p.exp()).sum(1)
    return found
