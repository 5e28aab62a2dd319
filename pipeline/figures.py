"""Figures as text, in one way for the terminal, the report, a bundle's card and the gate's verdicts."""

import math


def times(ratio: float, digits: int = 3) -> str:
    """A ratio as text, such as `11.1×`."""
    return f"{significant(ratio, digits)}×"


def significant(value: float, digits: int = 3) -> str:
    """Format to significant digits, keeping all digits before the point; an exponent only below 1e-4."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 3) -> str:
    """Write an interval in square brackets, with one digit more if so many leave its ends equal: `[4.87, 4.89]`."""
    for shown in (digits, digits + 1):
        ends = significant(low, shown), significant(high, shown)
        if ends[0] != ends[1]:
            break
    return f"[{ends[0]}, {ends[1]}]"


def speed(ratio: float, bounds: tuple[float, float], than: str = "", digits: int = 3) -> str:
    """Write a ratio of speeds with its 95 % interval: `1.51× slower than fp32 [1.48, 1.53]`.

    It is neither faster nor slower if the interval holds 1, or the ratio is within half a percent of 1.

    Args:
        than: the other one's name; empty: it is known.
    """
    low, high = bounds
    if low <= 1 <= high or abs(ratio - 1) < 0.005:
        named = f"{than}'s speed" if than else "the speed"
        return f"{times(ratio, digits)} {named} {interval(low, high, digits)}"
    word = "faster" if ratio > 1 else "slower"
    value, ends = (ratio, (low, high)) if ratio > 1 else (1 / ratio, (1 / high, 1 / low))
    return f"{times(value, digits)} {word}{f' than {than}' if than else ''} {interval(*ends, digits)}"


def shrink(ratio: float) -> str:
    """Write a ratio of sizes: `1.71× smaller`, `1.2× larger`."""
    return f"{times(ratio)} smaller" if ratio >= 1 else f"{times(1 / ratio)} larger"


def size(size_bytes: int) -> str:
    """A size in decimal units, such as `374 kB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return f"{significant(size_bytes / unit)} {name}"
    return f"{size_bytes} bytes"


def milliseconds(value: float) -> str:
    """A time as text, such as `0.214 ms`."""
    return f"{significant(value)} ms"


def points(share: float) -> str:
    """A difference of shares in percentage points, without its sign: `1.2 points`."""
    return f"{100 * abs(share):.{1 if abs(share) >= 0.001 else 2}f} points"


def points_interval(low: float, high: float) -> str:
    """An interval of shares in percentage points: `[−0.2, 1.3]`; a digit more where an end would be written as 0."""
    digits = 2 if any(0 < abs(end) < 0.0005 for end in (low, high)) else 1
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]".replace("-", "−")


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
