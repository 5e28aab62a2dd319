"""The table of methods: a file and a line each."""

from distill.methods.base import Method, MethodConfig, Slot
from distill.methods.kd import KD
from distill.methods.kd_aif import KDAIF
from distill.methods.none import NoDistillation

METHODS: dict[str, type[Method]] = {
    "kd": KD,
    "kd_aif": KDAIF,
    "none": NoDistillation,
}

__all__ = ["KD", "METHODS", "Method", "MethodConfig", "Slot"]
