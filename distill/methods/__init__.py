"""The table of methods: a file and a line each."""

from distill.methods.base import Method, MethodConfig, Slot
from distill.methods.kd import KD
from distill.methods.none import NoDistillation

METHODS: dict[str, type[Method]] = {
    "kd": KD,
    "none": NoDistillation,
}

__all__ = ["KD", "METHODS", "Method", "MethodConfig", "Slot"]
