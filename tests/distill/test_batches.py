"""Trials in batches: those of one make the same study, and neither order, workers nor a kill change one."""

import math

import pytest

from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.elsewhere.batches import stops
from edgestill.distill.elsewhere.stretch import Reached
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.tune import tune
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.training.state import EpochRecord

DISTILL = DistillConfig(methods=(KDConfig(),), training=StudentTrainingConfig(epochs=9))
TUNE = TuneConfig(trials=5, epochs=9, startup_trials=3)
FAILING = 2


def scores(config):
    """Accuracies of a training by epoch: best near a learning rate of 0.1, reached over the epochs."""
    height = 0.9 - 0.1 * math.log10(config.training.learning_rate / 0.1) ** 2
    return [height * (1 - 0.5 ** (e + 1)) - 0.05 * (e % 3 == 2) for e in range(config.training.epochs)]


def in_turn(config, trial, observe):
    if trial == FAILING:
        raise CandidateError("its process was killed", "process_died")
    found = scores(config)
    for epoch, score in enumerate(found, 1):
        observe(
            EpochRecord(
                epoch=epoch, learning_rate=0.1, loss=1.0, terms={}, seconds=0.1, validation_accuracy=score,
                validation_cross_entropy=1.0,
            )
        )  # fmt: skip
    return max(found)


class AtOnce:
    """Trainings in the place of workers; `order` has the trials of a batch end in another order."""

    def __init__(self, kill_at=-1, order=lambda stretches: stretches):
        self.kill_at, self.order, self.trained, self.batches = kill_at, order, [], []

    def __call__(self, stretches):
        self.batches.append([stretch.trial for stretch in stretches])
        ended = {stretch.trial: self._reached(stretch) for stretch in self.order(stretches)}
        for stretch in stretches:
            if len(self.trained) == self.kill_at:
                raise KeyboardInterrupt
            self.trained.append((stretch.trial, stretch.until))
            yield ended[stretch.trial]

    def _reached(self, stretch):
        def reached():
            if stretch.trial == FAILING:
                raise CandidateError("its process was killed", "process_died")
            found = scores(stretch.config)
            return Reached(tuple(found[: stretch.until]), max(found) if stretch.until == len(found) else None)

        return reached


@pytest.fixture
def study(tmp_path):
    def run(at_once, size=1, name="study", **changes):
        config = TUNE.model_copy(update={"at_once": size, **changes})
        return tune(config, DISTILL, in_turn, tmp_path / f"{name}.db", seed=0, at_once=at_once)

    return run


def test_batches_of_one_make_the_study_that_trials_in_turn_make(study):
    expected = study(None)
    assert {trial.state for trial in expected.trials} == {"COMPLETE", "PRUNED", "FAIL"}
    assert study(AtOnce(), name="batches") == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed study in batches of three, and the trainings that it asked for."""
    at_once, file = AtOnce(), tmp_path_factory.mktemp("batches") / "study.db"
    return tune(TUNE.model_copy(update={"at_once": 3}), DISTILL, in_turn, file, seed=0, at_once=at_once), at_once


def test_the_order_in_which_a_batch_ends_changes_nothing(study, whole):
    assert study(AtOnce(order=lambda found: found[::-1]), 3) == whole[0]


def test_a_batch_goes_from_stop_to_stop_and_the_next_one_begins_when_it_is_over(whole):
    at_once = whole[1]
    assert stops(3, 9, 3) == [3, 9]
    assert stops(9, 9, 3) == [9]
    assert at_once.batches[0] == [0, 1, 2]
    assert all(set(batch) <= {0, 1, 2} or set(batch) <= {3, 4} for batch in at_once.batches)
    assert len(set(at_once.trained)) == len(at_once.trained), "a stretch was trained twice"


def test_a_study_killed_anywhere_ends_as_an_undisturbed_one_and_counts_no_trial_twice(study, whole):
    expected, undisturbed = whole
    for kill_at in (1, len(undisturbed.trained) // 2, len(undisturbed.trained) - 1):
        killed, rest = AtOnce(kill_at), AtOnce()
        with pytest.raises(KeyboardInterrupt):
            study(killed, 3, f"killed {kill_at}")
        assert study(rest, 3, f"killed {kill_at}") == expected
        assert killed.trained + rest.trained == undisturbed.trained
    assert [trial.number for trial in expected.trials] == list(range(5))


def test_trials_of_a_batch_learn_nothing_of_each_other(study, monkeypatch):
    config = {"trials": 5, "startup_trials": 1, "epochs": 3}
    before = study(AtOnce(), 4, "before", **config)
    true = scores
    monkeypatch.setattr(f"{__name__}.scores", lambda given: [0.5 - score / 2 for score in true(given)])
    after = study(AtOnce(), 4, "after", **config)
    assert [t.params for t in after.trials[:4]] == [t.params for t in before.trials[:4]]
    assert after.trials[4].params != before.trials[4].params
