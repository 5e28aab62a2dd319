"""Words and figures about a student; a larger, slower or worse one is called so."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from edgestill.pipeline.figures import milliseconds, speed, times
from edgestill.search.result import Failure, WinnerLatency

_NO_BREAK = "\N{NO-BREAK SPACE}"  # between a figure and its interval


class Claim(NamedTuple):
    """A figure and the words after it; `is_gain` is True if it speaks for the student, False if against, else None."""

    figure: str
    rest: str
    is_gain: bool | None

    @property
    def words(self) -> str:
        return f"{self.figure} {self.rest}"


def size_claim(teacher_params: int | None, student_params: int) -> Claim:
    """Claim on parameters, such as `11.1× fewer parameters`; without the teacher's, their number."""
    if teacher_params is None:
        return Claim(f"{student_params:,}", "parameters", None)
    if teacher_params == student_params:
        return Claim("1×", "the parameters, no fewer", None)
    if teacher_params > student_params:
        return Claim(times(teacher_params / student_params), "fewer parameters", True)
    return Claim(times(student_params / teacher_params), "more parameters", False)


def speed_claim(speedup: float, bounds: tuple[float, float]) -> Claim:
    """Claim on speed, such as `5.41× faster [5.41, 5.42]`; neither faster nor slower if the interval holds 1."""
    figure, _, rest = speed(speedup, bounds).partition(" ")
    rest = rest.replace(" [", f"{_NO_BREAK}[").replace(", ", f",{_NO_BREAK}")
    if bounds[0] <= 1 <= bounds[1]:
        return Claim(figure, f"{rest}, no measurable difference", None)
    return Claim(figure, rest, speedup > 1)


def call_claim(p50_ms: float) -> Claim:
    """Claim on the time of a call where the teacher has none, such as `0.12 ms a call`."""
    figure, _, unit = milliseconds(p50_ms).partition(" ")
    return Claim(figure, f"{unit} a call", None)


def accuracy_claim(teacher: float, student: float) -> Claim:
    """Claim on accuracy in percentage points, such as `−0.2 points`."""
    points = 100 * (student - teacher)
    if abs(points) < 1e-9:
        return Claim("±0", "points", None)
    digits = 1 if abs(points) >= 0.1 else 2
    return Claim(f"{'+' if points > 0 else '−'}{abs(points):.{digits}f}", "points", points > 0)


def failure_counts(failures: Sequence[Failure]) -> str:
    """Failures by type, the most frequent first: `3 out of memory, 1 dead`."""
    counts = Counter(failure.type for failure in failures)
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.most_common())


def latency_clause(latency: WinnerLatency | None) -> str:
    """Clause on latency, such as `, predicted 2.10 ms ± 8%, measured 2.21 ms`; empty if the budget has no limit."""
    if latency is None:
        return ""
    predicted, error, measured = latency.predicted_ms, latency.predicted_error, latency.measured_ms
    found = "" if predicted is None else f", predicted {milliseconds(predicted)} ± {error or 0:.0%}"
    if measured is not None:
        return f"{found}, measured {milliseconds(measured)}"
    return f"{found}, not measured: the target is another machine"
