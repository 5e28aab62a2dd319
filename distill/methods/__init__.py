"""The table of methods: a file and a line each."""

from distill.methods.base import Method, MethodConfig, Slot
from distill.methods.hard import Hard
from distill.methods.kd import KD
from distill.methods.none import NoDistillation
from distill.methods.random_affine import RandomAffine

METHODS: dict[str, type[Method]] = {
    "kd": KD,
    "none": NoDistillation,
    "hard": Hard,
    "random_affine": RandomAffine,
}

__all__ = ["KD", "METHODS", "Method", "MethodConfig", "Slot"]
