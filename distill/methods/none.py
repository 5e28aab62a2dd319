"""No distillation: the baseline that every method is compared with."""

from typing import Any, ClassVar, Literal

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.pipeline.data.splits import Batch


class NoneConfig(MethodConfig):
    """Training on the labels alone, without the teacher."""

    name: Literal["none"] = "none"


class NoDistillation(Method):
    """Loss L = CE: a = 1 and b = 0."""

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "a baseline without a paper, 2026"
    fills: ClassVar[frozenset[Slot]] = frozenset({"weight"})
    Config: ClassVar[type[MethodConfig]] = NoneConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config or NoneConfig())

    def weight(self, batch: Batch) -> tuple[float, float]:
        return 1.0, 0.0
