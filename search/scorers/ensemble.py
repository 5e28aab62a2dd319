"""Default score: weighted sum of several scores, each standardised in its natural unit."""

import math
from collections.abc import Mapping
from typing import ClassVar

from edgestill.search.scorers.base import Scorer, ScoringContext, Student
from edgestill.search.scorers.ensemble_scale import PARTS, Scale, natural

_CLIP = (-4.0, 6.0)


class Ensemble(Scorer):
    """sum_i w_i z_i over the parts, z_i on the calibration's fixed scale; scores one candidate alone.

    Ours. The scales are fixed before the search, so that a score does not depend on the other candidates. They are
    never finer than a wide space's: over a narrow space most scores hardly vary, and ranks or standard deviations
    would amplify their noise. The weights were measured (docs/scores.md).
    """

    name: ClassVar[str] = "ensemble"
    parts: ClassVar[tuple[str, ...]] = tuple(PARTS)
    images: ClassVar[int | None] = 32

    def __init__(self, context: ScoringContext) -> None:
        super().__init__(context)
        assert context.calibration is not None
        self._calibration = context.calibration

    def __call__(self, student: Student) -> float:
        return sum(PARTS[name].weight * z for name, z in self.standardised(student.parts).items())

    def standardised(self, parts: Mapping[str, float]) -> dict[str, float]:
        """Return z of every part with a score in this space; NaN if the candidate has none."""
        return {name: _z(natural(parts[name], PARTS[name]), scale) for name, scale in self._calibration.scales.items()}


def _z(value: float, scale: Scale) -> float:
    if math.isnan(value):
        return math.nan
    return min(max((value - scale.median) / scale.scale, _CLIP[0]), _CLIP[1])
