"""Influence of training examples on the reference loss: the table of backends, a line each."""

from edgestill.distill.methods.kd_aif.influence.base import Backend, Question, ReferenceLoss
from edgestill.distill.methods.kd_aif.influence.ekfac import ekfac
from edgestill.distill.methods.kd_aif.influence.last_layer import last_layer
from edgestill.distill.methods.kd_aif.influence.network import cg, identity, lissa_backend
from edgestill.distill.methods.kd_aif.influence.weights import WeightMap, effective_share, influence_range, to_weights

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
