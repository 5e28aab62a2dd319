"""Results of looking closely at the test split, for the page."""

from typing import Annotated, Literal

from pydantic import Field

from edgestill.pipeline.frozen import Count, Frozen, Share
from edgestill.pipeline.training.fidelity import Fidelity

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Reliability(Frozen):
    """Confidence (the largest softmax probability) against accuracy, in bins of equal width over (0, 1]."""

    counts: tuple[Count, ...]  # examples of each bin
    hits: tuple[Count, ...]  # and how many of them were answered right
    confidences: tuple[Finite, ...]  # sums over each bin

    @property
    def n(self) -> int:
        return sum(self.counts)

    @property
    def error(self) -> float:
        """Expected calibration error."""
        gaps = (abs(hits - confidence) for hits, confidence in zip(self.hits, self.confidences, strict=True))
        return sum(gaps) / self.n


class Opinion(Frozen):
    """An answer, and its softmax probability."""

    answer: Count
    confidence: Share


class Disagreement(Frozen):
    """A test example on which teacher and shipped file differ."""

    index: Count  # in the test split
    truth: Count
    teacher: Opinion
    student: Opinion
    text: str = ""
    image: str = Field("", pattern=r"^[A-Za-z0-9+/=]*$")  # PNG as base64


Case = Literal["teacher", "student", "neither"]  # is right


class Disagreements(Frozen):
    """Examples on which teacher and shipped file differ, counted by who is right, and a few of each case."""

    counts: dict[Case, Count]
    shown: dict[Case, tuple[Disagreement, ...]] = {}


class ShiftedAccuracy(Frozen):
    """Accuracies on the same examples, shifted in one way."""

    shift: str  # family, such as noise
    strength: str
    teacher: Share
    student: Share


class Robustness(Frozen):
    """Accuracies on shifted test examples; `clean` ones are the same examples as they are."""

    n: Count
    clean: ShiftedAccuracy | None = None
    rows: tuple[ShiftedAccuracy, ...] = ()
    left_out: str = ""  # why there are no rows, or fewer examples, as a sentence's end


class Examined(Frozen):
    """A close look at the test split."""

    teacher: Reliability
    student: Reliability
    disagreements: Disagreements
    robustness: Robustness | None = None
    fidelity: Fidelity | None = None  # None: of an older version
