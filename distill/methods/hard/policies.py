"""Policies: the augmentor's weights of the student's disagreement L_ts and the teacher's inconsistency L_tt.

The augmentor ascends lam_s * L_ts - lam_t * L_tt; a policy gives (lam_s, lam_t) from L_tt, step by step.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

PolicyName = Literal["hysteresis", "penalty", "lagrangian"]


class Policy(ABC):
    """Base of the policies: keeps a moving average of L_tt, from which `decide` gives the weights."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.average: float | None = None

    def weights(self, inconsistency: float) -> tuple[float, float]:
        """Return (lam_s, lam_t) for this step; `inconsistency` is its L_tt."""
        before = inconsistency if self.average is None else self.average
        self.average = self._decay * before + (1 - self._decay) * inconsistency
        return self.decide(self.average)

    @abstractmethod
    def decide(self, average: float) -> tuple[float, float]:
        """Return (lam_s, lam_t) from the moving average of L_tt."""

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Hysteresis(Policy):
    """Explore with (1, 0) until L_tt passes l_max; then repair with (0, 1) until it is below l_min."""

    def __init__(self, decay: float, l_max: float, l_min: float) -> None:
        super().__init__(decay)
        self._l_max, self._l_min = l_max, l_min
        self.repairs = False

    def decide(self, average: float) -> tuple[float, float]:
        if average > self._l_max:
            self.repairs = True
        elif average < self._l_min:
            self.repairs = False
        return (0.0, 1.0) if self.repairs else (1.0, 0.0)


class Penalty(Policy):
    """Fixed weights (1, lam_t), whatever L_tt."""

    def __init__(self, decay: float, consistency_weight: float) -> None:
        super().__init__(decay)
        self._weight = consistency_weight

    def decide(self, average: float) -> tuple[float, float]:
        return 1.0, self._weight


class Lagrangian(Policy):
    """Weights (1, lam_t) by dual ascent: lam_t grows with the excess of L_tt over l_max and stays at 0 or above."""

    def __init__(self, decay: float, l_max: float, rate: float) -> None:
        super().__init__(decay)
        self._l_max, self._rate = l_max, rate
        self.multiplier = 0.0

    def decide(self, average: float) -> tuple[float, float]:
        self.multiplier = max(0.0, self.multiplier + self._rate * (average - self._l_max))
        return 1.0, self.multiplier
