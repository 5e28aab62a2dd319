"""Time for the baselines: before each training it tells if there is time for it."""

from collections.abc import Iterable, Mapping


class Allowance:
    """Seconds that may be spent, and those that a training is expected to take.

    Args:
        expected_s: of a training by arm, as long as none of the arm was measured.
    """

    def __init__(self, allowed_s: float, expected_s: Mapping[str, float]) -> None:
        self.allowed_s, self.spent_s = allowed_s, 0.0
        self._first, self._measured = dict(expected_s), dict[str, list[float]]()

    def spend(self, seconds: float, arm: str | None = None) -> None:
        """Count seconds as spent, on a training of the arm if one is given."""
        self.spent_s += seconds
        if arm is not None:
            self._measured.setdefault(arm, []).append(seconds)

    def expected_s(self, arm: str) -> float:
        """Mean of the arm's measured trainings."""
        measured = self._measured.get(arm)
        return sum(measured) / len(measured) if measured else self._first[arm]

    def fits(self, arms: Iterable[str], besides_s: float = 0.0) -> bool:
        """True if a training of each of these arms, and so many seconds more, are expected to fit."""
        return self.spent_s + besides_s + sum(map(self.expected_s, arms)) <= self.allowed_s
