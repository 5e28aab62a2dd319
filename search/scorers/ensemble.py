"""Default score: weighted sum of several scores, each standardised in its natural unit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from edgestill.pipeline.frozen import Frozen
from edgestill.search.scorers.base import Scorer, ScoringContext, Student
from edgestill.search.scorers.ensemble_scale import PARTS, EnsembleScale, Scale, fit_scale, natural

_CLIP = (-4.0, 6.0)


class Ensemble(Scorer):
    """sum_i w_i z_i over the parts, z_i on scales fixed before the search; scores one candidate alone.

    Ours. The scales are fixed so that a score does not depend on the other candidates. They are
    never finer than a wide space's: over a narrow space most scores hardly vary, and ranks or standard deviations
    would amplify their noise. The weights were measured (docs/explanation/scores.md).
    """

    name: ClassVar[str] = "ensemble"
    parts: ClassVar[tuple[str, ...]] = tuple(PARTS)
    images: ClassVar[int | None] = 32
    prepares: ClassVar[type[Frozen] | None] = EnsembleScale
    kept_as: ClassVar[str] = "edgestill.calibration/1"

    def __init__(self, context: ScoringContext, config: Any = None) -> None:
        super().__init__(context, config)
        assert isinstance(context.prepared, EnsembleScale)
        self._scale = context.prepared

    @classmethod
    def prepare(cls, sample: Mapping[str, Sequence[float]]) -> EnsembleScale:
        return fit_scale(sample)

    @property
    def missing(self) -> tuple[str, ...]:
        return self._scale.missing

    def __call__(self, student: Student) -> float:
        return sum(PARTS[name].weight * z for name, z in self.standardised(student.parts).items())

    def standardised(self, parts: Mapping[str, float]) -> dict[str, float]:
        """Return z of every part with a score in this space; NaN if the candidate has none."""
        return {name: _z(natural(parts[name], PARTS[name]), scale) for name, scale in self._scale.scales.items()}


def _z(value: float, scale: Scale) -> float:
    if math.isnan(value):
        return math.nan
    return min(max((value - scale.median) / scale.scale, _CLIP[0]), _CLIP[1])
