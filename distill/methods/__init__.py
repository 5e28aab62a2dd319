"""Table of methods: a file and a line each."""

from distill.methods.base import Method, MethodConfig, Slot
from distill.methods.diswot_plus import DiswotPlus
from distill.methods.embedding_regression import EmbeddingRegression
from distill.methods.hard import Hard
from distill.methods.kd import KD
from distill.methods.kd_aif import KDAIF
from distill.methods.lelp import LELP
from distill.methods.none import NoDistillation
from distill.methods.random_affine import RandomAffine
from distill.methods.rkd import RKD

METHODS: dict[str, type[Method]] = {
    "kd": KD,
    "kd_aif": KDAIF,
    "none": NoDistillation,
    "lelp": LELP,
    "rkd": RKD,
    "embedding_regression": EmbeddingRegression,
    "diswot_plus": DiswotPlus,
    "hard": Hard,
    "random_affine": RandomAffine,
}

__all__ = ["KD", "METHODS", "Method", "MethodConfig", "Slot"]
