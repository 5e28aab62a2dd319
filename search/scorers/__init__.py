"""The table of scorers: a file (or a few lines of one) and a line each. Higher is better, always."""

from search.scorers.az_trainability import AzTrainability
from search.scorers.base import Scorer, ScoringContext, Student
from search.scorers.counts import Flops, Params, Random
from search.scorers.diswot import Diswot, DiswotRelation, DiswotSemantic, DiswotStages
from search.scorers.jacov import Jacov
from search.scorers.meco import Meco
from search.scorers.nwot import Nwot
from search.scorers.swap import Swap
from search.scorers.synflow import Synflow
from search.scorers.zico import Zico

SCORERS: dict[str, type[Scorer]] = {
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
    "zico": Zico,
    "params": Params,
    "flops": Flops,
    "random": Random,
}

__all__ = ["SCORERS", "Scorer", "ScoringContext", "Student"]
