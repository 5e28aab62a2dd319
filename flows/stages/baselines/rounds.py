"""Order of the baselines' trainings: seed by seed, so that arms are compared on the same seeds, until time is up.

A resumed round repeats no finished training and no decision.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgestill.distill.tune import with_hyperparameters
from edgestill.flows.stages.baselines.allowance import Allowance
from edgestill.flows.stages.baselines.arms import Arm
from edgestill.flows.stages.results import BaselineTraining
from edgestill.pipeline.errors import EngineError, first_line

_FAILURES = (RuntimeError, ArithmeticError, MemoryError)  # NaN, out of memory: they end one arm alone
Train = Callable[[Arm, int], BaselineTraining]  # an arm, a seed
Begin = Callable[[Sequence[Arm], int], None]  # arms, a seed
Tune = Callable[[Arm], Mapping[str, float]]  # an arm to its best hyperparameters


class Rounds:
    """Rounds of trainings, and what came of them.

    Args:
        student: the distillation, which is the recipe's training by seed 0.
        known: entries given to `record` by an interrupted stage.
    """

    def __init__(
        self,
        student: BaselineTraining,
        allowance: Allowance,
        known: Sequence[Mapping[str, Any]],
        record: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.trainings, self.failures = [student], dict[str, str]()
        self.are_tuned = False  # True if each arm that may be is tuned by itself
        self._allowance, self._record = allowance, record
        self._known = {entry["key"]: entry["value"] for entry in known}

    def tuned(self, arms: Sequence[Arm], seeds: int, tune: Tune, tuning_s: float) -> tuple[Arm, ...]:
        """Tune the arms that may be, if there is time for that and for every training.

        Args:
            tuning_s: that the recipe's tuning took; 0: it was not tuned, and no arm is.
        """
        tunable = [arm for arm in arms if arm.is_tunable]
        wanted = [arm.name for seed in range(seeds) for arm in (arms if seed else arms[1:])]
        fits = tuning_s > 0 and self._allowance.fits(wanted, besides_s=len(tunable) * tuning_s)
        self.are_tuned = self._once("are tuned", lambda: fits and bool(tunable))
        return tuple(self._with_own(arm, tune) if self.are_tuned and arm.is_tunable else arm for arm in arms)

    def play(self, arms: Sequence[Arm], seeds: int, train: Train, begin: Begin = lambda arms, seed: None) -> None:
        """Train seed by seed; an arm without time for one seed has no later ones.

        Args:
            begin: is told the arms of a seed that there seems to be time for, before they are trained in that order.
        """
        recipe, *others = (arm for arm in arms if arm.name not in self.failures)
        for seed in range(seeds):
            first = [recipe] if seed else []
            if not any(self._fits([*first, arm], seed) for arm in others):
                return
            begin(self._expected([*first, *others], seed), seed)
            if not all(self._is_trained(arm, seed, train) for arm in first):
                return
            others = [arm for arm in others if self._fits([arm], seed) and self._is_trained(arm, seed, train)]

    def _expected(self, arms: Sequence[Arm], seed: int) -> list[Arm]:
        """Return the arms still to be trained that fit if all take as long as expected."""
        chosen: list[Arm] = []
        for arm in arms:
            if _key(arm, seed) not in self._known and self._fits([*chosen, arm], seed):
                chosen.append(arm)
        return chosen

    def _fits(self, arms: Sequence[Arm], seed: int) -> bool:
        return self._allowance.fits(arm.name for arm in arms if _key(arm, seed) not in self._known)

    def _is_trained(self, arm: Arm, seed: int, train: Train) -> bool:
        """Train an arm, unless that is done, and return False if it failed."""
        found = self._attempted(_key(arm, seed), arm, lambda: train(arm, seed).model_dump(mode="json"))
        if found is None:
            return False
        training = BaselineTraining.model_validate(found)
        self._allowance.spend(training.seconds, arm.name)
        self.trainings.append(training)
        return True

    def _with_own(self, arm: Arm, tune: Tune) -> Arm:
        start = time.perf_counter()
        found = self._attempted(f"tuning {arm.name}", arm, lambda: _timed(tune(arm), start))
        if found is None:
            return arm
        self._allowance.spend(found["seconds"])
        return arm._replace(config=with_hyperparameters(arm.config, found["best"]))

    def _attempted(self, key: str, arm: Arm, work: Callable[[], Any]) -> Any:
        """Return the work's value, or None if it failed."""
        found = self._once(key, lambda: _tried(work))
        if "failure" not in found:
            return found
        self.failures[arm.name] = found["failure"]
        return None

    def _once(self, key: str, work: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = work()
            self._record({"key": key, "value": self._known[key]})
        return self._known[key]


def _key(arm: Arm, seed: int) -> str:
    return f"{arm.name} {seed}"


def _tried(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except EngineError:
        raise
    except _FAILURES as error:
        return {"failure": f"{type(error).__name__}: {first_line(error)}"}


def _timed(best: Mapping[str, float], start: float) -> dict[str, Any]:
    return {"best": dict(best), "seconds": time.perf_counter() - start}
