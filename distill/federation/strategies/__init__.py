"""Table of federated strategies: a file and a line each."""

from edgestill.distill.federation.strategies.average import Average
from edgestill.distill.federation.strategies.base import Answers, Fused, Known, Strategy, StrategyConfig
from edgestill.distill.federation.strategies.edgefd import EdgeFD
from edgestill.distill.federation.strategies.knfu import KnFu
from edgestill.distill.federation.strategies.local import Local

STRATEGIES: dict[str, type[Strategy]] = {
    "average": Average,
    "edgefd": EdgeFD,
    "knfu": KnFu,
    "local": Local,
}

__all__ = ["STRATEGIES", "Answers", "Fused", "Known", "Strategy", "StrategyConfig"]
