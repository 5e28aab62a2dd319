"""Plain averaging of all clients' logits on the whole pool, the unfiltered baseline."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from edgestill.distill.federation.strategies.base import Answers, Fused, Strategy, StrategyConfig, mean_logits
from edgestill.distill.methods.facts import Evidence


class AverageConfig(StrategyConfig):
    """Mean of all clients' logits."""

    name: Literal["average"] = "average"


class Average(Strategy):
    """The mean over the clients, t(x) = 1/n sum_m s_m(x), as in FedMD without its training on a labelled public set."""

    name: ClassVar[str] = "average"
    paper: ClassVar[str] = "after Li, Wang 2019, arXiv:1910.03581"
    evidence: ClassVar[Evidence] = "ours"
    Config: ClassVar[type[StrategyConfig]] = AverageConfig

    def fuse(self, answers: Mapping[int, Answers], size: int) -> Fused:
        mean = mean_logits(answers, size)
        return Fused(dict.fromkeys(answers, mean), mean)
