"""Table of scorers: each is a file (or a few lines of one) and a line here. Higher is always better."""

from search.scorers.az_trainability import AzTrainability
from search.scorers.base import Scorer, ScoringContext, Student
from search.scorers.counts import Flops, Params, Random
from search.scorers.diswot import Diswot, DiswotRelation, DiswotSemantic, DiswotStages
from search.scorers.ensemble import Ensemble
from search.scorers.jacov import Jacov
from search.scorers.meco import Meco, MecoBlocks
from search.scorers.nwot import Nwot
from search.scorers.scale import Calibration
from search.scorers.swap import Swap
from search.scorers.synflow import Synflow
from search.scorers.zen import Zen
from search.scorers.zico import Zico

SCORERS: dict[str, type[Scorer]] = {
    "ensemble": Ensemble,
    "diswot": Diswot,
    "diswot_semantic": DiswotSemantic,
    "diswot_relation": DiswotRelation,
    "diswot_stages": DiswotStages,
    "nwot": Nwot,
    "jacov": Jacov,
    "swap": Swap,
    "az_trainability": AzTrainability,
    "synflow": Synflow,
    "meco": Meco,
    "meco_blocks": MecoBlocks,
    "zico": Zico,
    "zen": Zen,
    "params": Params,
    "flops": Flops,
    "random": Random,
}


def builds_networks(name: str) -> bool:
    """True if a scorer looks at a network with weights; the others count, or draw at random."""
    kind = SCORERS[name]
    return kind.initialisation is not None or any(builds_networks(part) for part in kind.parts)


__all__ = ["SCORERS", "Calibration", "Scorer", "ScoringContext", "Student", "builds_networks"]
