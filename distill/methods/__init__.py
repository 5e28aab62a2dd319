"""Table of methods: a file and a line each."""

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.diswot_plus import DiswotPlus
from edgestill.distill.methods.hard.method import Hard
from edgestill.distill.methods.hard.random_affine import RandomAffine
from edgestill.distill.methods.kd import KD
from edgestill.distill.methods.kd_aif.method import KDAIF
from edgestill.distill.methods.lelp.embedding_regression import EmbeddingRegression
from edgestill.distill.methods.lelp.method import LELP
from edgestill.distill.methods.none import NoDistillation
from edgestill.distill.methods.rkd import RKD

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
