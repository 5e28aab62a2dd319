"""Influence of training examples on the reference loss: the table of backends, a line each."""

from edgestill.distill.influence.base import Backend, Question, ReferenceLoss
from edgestill.distill.influence.ekfac import ekfac
from edgestill.distill.influence.last_layer import last_layer
from edgestill.distill.influence.network import cg, identity, lissa_backend
from edgestill.distill.influence.weights import WeightMap, effective_share, influence_range, to_weights

BACKENDS: dict[str, Backend] = {
    "last_layer": last_layer,
    "cg": cg,
    "lissa": lissa_backend,
    "ekfac": ekfac,
    "identity": identity,
}

__all__ = [
    "BACKENDS",
    "Backend",
    "Question",
    "ReferenceLoss",
    "WeightMap",
    "effective_share",
    "influence_range",
    "to_weights",
]
