"""Local training, the baseline without exchange: the clients answer once, after the last round."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from edgestill.distill.federation.strategies.base import Answers, Fused, Strategy, StrategyConfig, mean_logits
from edgestill.distill.methods.facts import Evidence


class LocalConfig(StrategyConfig):
    """Each client learns from its own data alone."""

    name: Literal["local"] = "local"


class Local(Strategy):
    """Clients are taught nothing; the mean of their last answers teaches the student that ships."""

    name: ClassVar[str] = "local"
    paper: ClassVar[str] = "a baseline without a paper, 2026"
    evidence: ClassVar[Evidence] = "ours"
    Config: ClassVar[type[StrategyConfig]] = LocalConfig
    teaches: ClassVar[bool] = False

    def fuse(self, answers: Mapping[int, Answers], size: int) -> Fused:
        return Fused({}, mean_logits(answers, size))
