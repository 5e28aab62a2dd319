"""Logit standardisation: teacher's and student's logits are compared by their z-scores, whatever their size.

Sun, Ren, Li, Wang and Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv:2403.01427. Follows the
authors' code: Z(x) = (x - mean) / (std + 1e-7) with the unbiased std, base temperature 2, weights 9 and 0.1.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.tunable import tunable

_EPSILON = 1e-7  # of the authors' code


class LogitStandardisationConfig(MethodConfig):
    """Plain KD, or another divergence, on standardised logits."""

    name: Literal["logit_standardisation"] = "logit_standardisation"
    temperature: float = tunable(
        2.0,
        gt=0,
        le=100,
        tune=(1.0, 8.0),
        log=True,
        description="base temperature (tau) of the softmax of z-scores; unused if a method fills `divergence`",
    )
    distill_weight: float = tunable(
        9.0,
        ge=0,
        le=1e4,
        tune=(1.0, 20.0),
        log=True,
        description="weight (b) of distillation; unused if a method fills `divergence` or `weight`",
    )
    label_weight: float = tunable(
        0.1,
        ge=0,
        le=1e4,
        tune=(0.05, 1.0),
        log=True,
        description="weight (a) of the labels; unused if a method fills `divergence` or `weight`",
    )


class LogitStandardisation(Method):
    """Loss a CE + b tau^2 KL(softmax(Z(t) / tau) || softmax(Z(s) / tau)), equation 5 and algorithm 1."""

    name: ClassVar[str] = "logit_standardisation"
    paper: ClassVar[str] = "Sun, Ren, Li, Wang, Cao 2024, arXiv:2403.01427"
    fills: ClassVar[frozenset[Slot]] = frozenset({"logits"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    min_classes: ClassVar[int] = 3  # two z-scores are always +-1 / sqrt(2): nothing is left to learn
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        ablation={"distill_weight": 0.0, "label_weight": 1.0},
        reduces_to=({"name": "none"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift", "scale"}),
        suits=lambda about: about.classes > 2,
    )
    Config: ClassVar[type[MethodConfig]] = LogitStandardisationConfig
    config: LogitStandardisationConfig

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        for other in others:
            if "head" in other.fills:
                yield (
                    f"method {self.name!r} standardises an example's class logits, and the head of method "
                    f"{other.name!r} gives others; leave one of them out"
                )

    def logits(self, logits: Tensor) -> Tensor:
        return z_scores(logits)

    def fallback(self) -> Method:
        return _WithTwoWeights(self.config)


class _WithTwoWeights(KD):
    def __init__(self, config: LogitStandardisationConfig) -> None:
        super().__init__(KDConfig(temperature=config.temperature))
        self._weights = config.label_weight, config.distill_weight

    def usual_weight(self) -> tuple[float, float]:
        return self._weights


def z_scores(logits: Tensor) -> Tensor:
    """Return (x - mean) / (std + 1e-7) of each example's logits [N, K], with the unbiased std."""
    logits = precise(logits)
    return (logits - logits.mean(1, keepdim=True)) / (_EPSILON + logits.std(1, keepdim=True))
