"""No distillation: the baseline that every method is compared with."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View

_FOR_THE_DIVERGENCE: frozenset[Slot] = frozenset({"data", "target", "divergence", "head"})


class NoneConfig(MethodConfig):
    """Training on the labels alone, without the teacher."""

    name: Literal["none"] = "none"


class NoDistillation(Method):
    """Loss L = CE: a = 1 and b = 0."""

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "a baseline without a paper, 2026"
    fills: ClassVar[frozenset[Slot]] = frozenset({"weight"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        algorithm="fine-tuning",
        access="teacher-free",
        zero_at_teacher=True,
        invariant_to=frozenset({"shift", "scale"}),
        cost=1.5,
    )
    Config: ClassVar[type[MethodConfig]] = NoneConfig

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        for other in others:
            if other.fills & _FOR_THE_DIVERGENCE:
                yield (
                    f"method {self.name!r} gives the divergence from the teacher no weight, which is what method "
                    f"{other.name!r} is there for; leave one of them out"
                )

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[float, float]:
        return 1.0, 0.0
