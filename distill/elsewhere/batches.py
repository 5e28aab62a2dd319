"""Trials of a study in batches: asked for together, trained at once, told in the order of their numbers.

Trials of one batch know nothing of each other's ends, and Hyperband judges them at the same epochs, in order. So the
study depends on the size of a batch, and neither on the number of workers nor on their speed. Batches of one make the
study that trials one after another make. A batch that a kill interrupted keeps its trials, and goes on with those that
are not finished.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from edgestill.distill.elsewhere.stretch import Reached, Stretch, TrainAtOnce
from edgestill.pipeline.errors import CandidateError, TrainingError

FAILURES = (TrainingError, CandidateError)  # of one trial; the study goes on


class Batches:
    """Batches of a study's trials.

    Args:
        size: number of trials of a batch.
        stops: numbers of epochs at which Hyperband may end a trial, ascending; the last is a whole training's.
        prepare: is given a number, by which the study's sampler is seeded before a trial is asked for.
        configured: asks for a trial's hyperparameters and returns its configuration.
    """

    def __init__(
        self,
        study: optuna.Study,
        size: int,
        stops: Sequence[int],
        *,
        prepare: Callable[[int], None],
        configured: Callable[[optuna.Trial], Any],
        train: TrainAtOnce,
    ) -> None:
        self._study, self._size, self._stops = study, size, tuple(stops)
        self._prepare, self._configured, self._train = prepare, configured, train

    def finish(self, trials: int, tick: Callable[[], None]) -> None:
        """Finish the batch that was interrupted, if one was, and all others up to a number of trials."""
        while True:
            tick()
            found = self._study.get_trials(deepcopy=False)
            asked = sum(trial.state.name != "WAITING" for trial in found)
            left = [trial for trial in found if trial.state.name == "RUNNING"]
            if not left and asked >= trials:
                return
            begun = left[0].number if left else asked
            end = min(begun // self._size * self._size + self._size, trials)
            batch = [self._again(trial) for trial in left] + [self._asked() for _ in range(asked, end)]
            self._finish({trial.number: (trial, self._configured(trial)) for trial in batch})

    def _asked(self) -> optuna.Trial:
        self._prepare(len(self._study.get_trials(deepcopy=False)))
        with warnings.catch_warnings():  # of heartbeats, which only `optimize` gives
            warnings.simplefilter("ignore")
            return self._study.ask()

    def _again(self, left: optuna.trial.FrozenTrial) -> optuna.Trial:
        self._prepare(left.number)
        return optuna.Trial(self._study, left._trial_id)

    def _finish(self, batch: Mapping[int, tuple[optuna.Trial, Any]]) -> None:
        """Train the batch from stop to stop; those that lag behind catch up first."""
        alive = dict(batch)
        while alive:
            stops = {number: self._next_stop(trial) for number, (trial, _) in alive.items()}
            until = min(stops.values())
            due = [number for number in alive if stops[number] == until]
            stretches = [Stretch(number, alive[number][1], until) for number in due]
            for number, reached in zip(due, self._train(stretches), strict=True):
                if self._is_ended(alive[number][0], until, reached):
                    del alive[number]

    def _next_stop(self, trial: optuna.Trial) -> int:
        reported = max(self._reported(trial), default=0)
        return next((stop for stop in self._stops if stop > reported), self._stops[-1])

    def _reported(self, trial: optuna.Trial) -> set[int]:
        return set(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def _is_ended(self, trial: optuna.Trial, until: int, reached: Callable[[], Reached]) -> bool:
        """Tell the study of a trial's epochs, and of its end if that is come."""
        try:
            found = reached()
        except FAILURES as error:
            trial.set_user_attr("reason", str(error))
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return True
        if self._is_pruned(trial, found.scores if until == self._stops[-1] else found.scores[:until]):
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return True
        if found.value is None or until < self._stops[-1]:
            return False
        self._study.tell(trial, found.value)
        return True

    def _is_pruned(self, trial: optuna.Trial, scores: Sequence[float]) -> bool:
        known, best = self._reported(trial), -1.0
        for epoch, score in enumerate(scores, 1):
            best = max(best, score)
            if epoch not in known:
                trial.report(best, epoch)
                if epoch < self._stops[-1] and trial.should_prune():  # after the last, pruning saves nothing
                    return True
        return False


def stops(first: int, epochs: int, factor: int) -> list[int]:
    """Numbers of epochs at which successive halving looks at a trial, and that of a whole training."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return [*found, epochs]
