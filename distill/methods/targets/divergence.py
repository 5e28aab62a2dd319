"""Menu of divergences between the teacher's and the student's probabilities, one to choose by name.

The f-divergences D_f(t || s) = sum_k s_k f(t_k / s_k) of the survey on on-policy distillation (2026), which lists them,
and AdaptiveKL. Forward, reverse and skewed KL, JSD, TVD and AdaptiveKL follow the code of TAID (Shing et al. 2025,
arXiv:2501.16937); the others are textbook's. All are computed from log-probabilities.
"""

# N examples, K classes

import math
from collections.abc import Callable
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

Kind = Literal[
    "forward_kl", "reverse_kl", "jeffreys", "js", "total_variation", "skew_kl", "skew_reverse_kl",
    "chi_squared", "hellinger", "alpha", "adaptive_kl",
]  # fmt: skip
_HEAD_MASS = 0.5  # of the teacher's probability, in AdaptiveKL's head


class DivergenceConfig(MethodConfig):
    """A divergence by name, in the place of plain KD's forward KL."""

    name: Literal["divergence"] = "divergence"
    kind: Kind = Field("reverse_kl", description="divergence D of the student's probabilities s from the teacher's t")
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of teacher and student softmax"
    )
    distill_weight: float = distillation_share(0.9)
    beta: float = tunable(
        0.5, gt=0, le=0.999, tune=(0.1, 0.9), description="teacher's share (beta) of the mixture, of js alone"
    )
    skew: float = tunable(
        0.1, ge=0, le=0.999, tune=(0.01, 0.5), description="share (lambda) mixed in, of the two skewed KL alone"
    )
    alpha: float = tunable(
        0.5,
        gt=0,
        le=0.999,
        tune=(0.1, 0.9),
        description="order of the alpha-divergence; the other divergences have none",
    )

    def unread(self) -> frozenset[str]:
        reads = {"js": "beta", "skew_kl": "skew", "skew_reverse_kl": "skew", "alpha": "alpha"}
        return frozenset({"beta", "skew", "alpha"} - {reads.get(self.kind, "")})


class Divergence(Method):
    """Loss (1 - b) CE + b T^2 D(softmax(t / T), softmax(s / T)), with D by name."""

    name: ClassVar[str] = "divergence"
    paper: ClassVar[str] = "survey on on-policy distillation, 2026, and its sources"
    fills: ClassVar[frozenset[Slot]] = frozenset({"divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        ablation={"kind": "forward_kl"},
        reduces_to=({"name": "kd"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        suits=lambda about: True,
    )
    Config: ClassVar[type[MethodConfig]] = DivergenceConfig
    config: DivergenceConfig

    def fallback(self) -> Method:
        return KD(KDConfig(temperature=self.config.temperature))

    def divergence(self, target: Tensor, student: View) -> Tensor:
        log_s = (precise(student.logits) / self.config.temperature).log_softmax(1)
        return self.config.temperature**2 * between(precise(target).log(), log_s, self.config)

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight


def between(log_t: Tensor, log_s: Tensor, config: DivergenceConfig) -> Tensor:
    """Return D(t, s), [N] in nats for the kinds of KL, from log-probabilities [N, K]; -inf is a probability of 0."""
    chosen: Callable[[Tensor, Tensor, DivergenceConfig], Tensor] = _MENU[config.kind]
    return chosen(log_t, log_s, config)


def mixed(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """Log of share p + (1 - share) q."""
    if not share:
        return log_q
    return torch.logaddexp(log_p + math.log(share), log_q + math.log(1 - share))


def _js(t: Tensor, s: Tensor, config: DivergenceConfig) -> Tensor:
    """JSD_beta = beta KL(t || m) + (1 - beta) KL(s || m), m = beta t + (1 - beta) s."""
    m = mixed(t, s, config.beta)
    return config.beta * kl(t, m) + (1 - config.beta) * kl(s, m)


def _alpha(t: Tensor, s: Tensor, config: DivergenceConfig) -> Tensor:
    """Amari's (1 - sum t^alpha s^(1 - alpha)) / (alpha (1 - alpha)); KL(t || s) as alpha goes to 1, KL(s || t) to 0."""
    alpha = config.alpha
    return (1 - (alpha * t + (1 - alpha) * s).exp().sum(1)) / (alpha * (1 - alpha))


def _adaptive(t: Tensor, s: Tensor, _: DivergenceConfig) -> Tensor:
    """AdaptiveKL, (g_head KL(t || s) + g_tail KL(s || t)) / (g_head + g_tail), g the gap |t - s| in each.

    Wu et al. 2024, arXiv:2404.02657. The head is the teacher's likeliest classes until half its probability is there.
    """
    with torch.no_grad():
        p, order = t.exp().sort(1, descending=True)
        in_head = torch.zeros_like(p, dtype=torch.bool).scatter(1, order, p.cumsum(1) - p < _HEAD_MASS)
        gap = (t.exp() - s.exp()).abs()
        head, whole = (gap * in_head).sum(1), gap.sum(1)
        share = torch.where(whole > 0, head / whole.clamp_min(1e-12), 0.5)
    return share * kl(t, s) + (1 - share) * kl(s, t)


_MENU: dict[str, Callable[[Tensor, Tensor, DivergenceConfig], Tensor]] = {
    "forward_kl": lambda t, s, _: kl(t, s),
    "reverse_kl": lambda t, s, _: kl(s, t),
    "jeffreys": lambda t, s, _: kl(t, s) + kl(s, t),
    "js": _js,
    "total_variation": lambda t, s, _: (t.exp() - s.exp()).abs().sum(1) / 2,
    "skew_kl": lambda t, s, config: kl(t, mixed(t, s, config.skew)),
    "skew_reverse_kl": lambda t, s, config: kl(s, mixed(s, t, config.skew)),
    "chi_squared": lambda t, s, _: (2 * t - s).exp().sum(1) - 1,
    "hellinger": lambda t, s, _: 1 - ((t + s) / 2).exp().sum(1),
    "alpha": _alpha,
    "adaptive_kl": _adaptive,
}
