"""Figures as text: enough digits to tell ends apart, a word only where the interval allows it."""

import pytest

from edgestill.pipeline.figures import duration, interval, listing, milliseconds, points, shrink, size, speed, times


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (times(4.884), "4.88×"),
        (times(1234.5), "1,234×"),
        (interval(4.87, 4.89), "[4.87, 4.89]"),
        (interval(5.411, 5.414), "[5.411, 5.414]"),
        (interval(-0.02, 0.3), "[−0.0200, 0.300]"),
        (speed(4.884, (4.87, 4.89)), "4.88× faster [4.87, 4.89]"),
        (speed(0.5, (0.4, 0.6), "fp32"), "2.00× slower than fp32 [1.67, 2.50]"),
        (speed(1.1, (0.9, 1.3), "fp32"), "1.10× fp32's speed [0.900, 1.30]"),
        (speed(1.004, (1.003, 1.005)), "1.00× the speed [1.003, 1.005]"),
        (shrink(1.71), "1.71× smaller"),
        (shrink(0.5), "2.00× larger"),
        (size(374_200), "374 kB"),
        (size(999), "999 bytes"),
        (milliseconds(0.21374), "0.214 ms"),
        (points(-0.0123), "1.2 points"),
        (points(0.0004), "0.04 points"),
        (duration(3723), "1 h 2 min"),
        (listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_a_figure_is_written_so(found: str, expected: str) -> None:
    assert found == expected
