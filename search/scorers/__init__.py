"""Table of scorers: each is a few lines of a file and a line here, or of another package. Higher is always better."""

from typing import Any

from edgestill.pipeline.plugins import Table, require_attributes, require_class
from edgestill.search.scorers.az_trainability import AzTrainability
from edgestill.search.scorers.base import Scorer, ScoringContext, Student
from edgestill.search.scorers.counts import Flops, Params, Random
from edgestill.search.scorers.diswot import Diswot, DiswotRelation, DiswotSemantic, DiswotStages
from edgestill.search.scorers.ensemble import Ensemble
from edgestill.search.scorers.jacov import Jacov
from edgestill.search.scorers.meco import Meco, MecoBlocks
from edgestill.search.scorers.nwot import Nwot
from edgestill.search.scorers.swap import Swap
from edgestill.search.scorers.synflow import Synflow
from edgestill.search.scorers.zen import Zen
from edgestill.search.scorers.zico import Zico


def _line(name: str, found: Any) -> type[Scorer]:
    require_class(found, Scorer)
    require_attributes(found, name)
    return found  # type: ignore[no-any-return]


SCORERS: Table[type[Scorer]] = Table("scorers", _line, {
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
})  # fmt: skip


def builds_networks(name: str) -> bool:
    """True if a scorer looks at a network with weights; the others count, or draw at random."""
    kind = SCORERS[name]
    return kind.initialisation is not None or any(builds_networks(part) for part in kind.parts)


__all__ = ["SCORERS", "Scorer", "ScoringContext", "Student", "builds_networks"]
