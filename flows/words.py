"""Words and figures about a student; a larger, slower or worse one is called so."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from edgestill.search.result import Failure, WinnerLatency


class Claim(NamedTuple):
    """A figure and the words after it; `is_gain` is True if it speaks for the student, False if against, else None."""

    figure: str
    rest: str
    is_gain: bool | None

    @property
    def words(self) -> str:
        return f"{self.figure} {self.rest}"


def size_claim(teacher_params: int, student_params: int) -> Claim:
    """Claim on parameters, such as `11.1× fewer parameters`."""
    if teacher_params == student_params:
        return Claim("1×", "the parameters, no fewer", None)
    if teacher_params > student_params:
        return Claim(times(teacher_params / student_params), "fewer parameters", True)
    return Claim(times(student_params / teacher_params), "more parameters", False)


def speed_claim(speedup: float, interval: tuple[float, float]) -> Claim:
    """Claim on speed, such as `5.41× faster [5.41, 5.42]`; neither faster nor slower if the interval holds 1."""
    low, high = interval
    if low <= 1 <= high:
        return Claim(
            times(speedup), f"the speed\N{NO-BREAK SPACE}{_interval(low, high)}, no measurable difference", None
        )
    if speedup > 1:
        return Claim(times(speedup), f"faster\N{NO-BREAK SPACE}{_interval(low, high)}", True)
    return Claim(times(1 / speedup), f"slower\N{NO-BREAK SPACE}{_interval(1 / high, 1 / low)}", False)


def accuracy_claim(teacher: float, student: float) -> Claim:
    """Claim on accuracy in percentage points, such as `−0.2 points`."""
    points = 100 * (student - teacher)
    if abs(points) < 1e-9:
        return Claim("±0", "points", None)
    digits = 1 if abs(points) >= 0.1 else 2
    return Claim(f"{'+' if points > 0 else '−'}{abs(points):.{digits}f}", "points", points > 0)


def times(ratio: float) -> str:
    """A ratio as text, such as `11.1×`."""
    return f"{significant(ratio)}×"


def significant(value: float, digits: int = 3) -> str:
    """Format to significant digits, keeping all digits before the point; an exponent only below 1e-4."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", "−")


def size(size_bytes: int) -> str:
    """A size in decimal units, such as `374 kB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return f"{significant(size_bytes / unit)} {name}"
    return f"{size_bytes} bytes"


def duration(seconds: float) -> str:
    """A duration as text: `0.4 s`, `14 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(names: list[str]) -> str:
    """A list as text: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _interval(low: float, high: float) -> str:
    """A 95 % interval in square brackets, with three significant digits, or four if three leave its ends equal."""
    for digits in (3, 4):
        ends = significant(low, digits), significant(high, digits)
        if ends[0] != ends[1]:
            break
    return f"[{ends[0]},\N{NO-BREAK SPACE}{ends[1]}]"


def failure_counts(failures: Sequence[Failure]) -> str:
    """Failures by type, the most frequent first: `3 out of memory, 1 dead`."""
    counts = Counter(failure.type for failure in failures)
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.most_common())


def latency_clause(latency: WinnerLatency | None) -> str:
    """Clause on latency, such as `, predicted 2.10 ms ± 8%, measured 2.21 ms`; empty if the budget has no limit."""
    if latency is None:
        return ""
    predicted, error, measured = latency.predicted_ms, latency.predicted_error, latency.measured_ms
    found = "" if predicted is None else f", predicted {significant(predicted)} ms ± {error or 0:.0%}"
    if measured is not None:
        return f"{found}, measured {significant(measured)} ms"
    return f"{found}, not measured: the target is another machine"
