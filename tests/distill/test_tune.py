"""Tuning repeats for a seed, survives a kill anywhere, and leaves a study that Optuna opens."""

import math
import sqlite3
import threading
from types import SimpleNamespace

import optuna
import pytest

from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.tune import STUDY, configured_values, search_ranges, tune, with_hyperparameters
from edgestill.pipeline.errors import CandidateError, FailedError, RunDirError, TrainingError
from edgestill.pipeline.training.state import EpochRecord

DISTILL = DistillConfig(
    methods=(KDConfig(temperature=3.0, distill_weight=0.7),),
    training=StudentTrainingConfig(epochs=9, learning_rate=0.02, weight_decay=1e-4),
)
TUNE = TuneConfig(trials=6, epochs=9, startup_trials=3)


class Training:
    """A landscape in place of a training: best near learning rate 0.1 and temperature 5, reached over the epochs.

    Like the real one it keeps its epochs by trial, so that a trial that is run again goes on where it was.
    """

    def __init__(self, kill_at=None, killer=KeyboardInterrupt, diverging=()):
        self.kill_at, self.killer, self.diverging = kill_at, killer, diverging
        self.reached = {}
        self.calls = []

    def __call__(self, config, trial, observe):
        (kd,) = config.methods
        self.calls.append((trial, config))
        if trial in self.diverging:
            raise TrainingError(f"the loss became nan in trial {trial}")
        height = 0.9 - 0.1 * math.log10(config.training.learning_rate / 0.1) ** 2
        height -= 0.1 * math.log2(kd.temperature / 5) ** 2 / 4 + 0.05 * (kd.distill_weight - 0.8) ** 2
        values = [height * (1 - 0.5 ** (e + 1)) - 0.05 * (e % 3 == 2) for e in range(config.training.epochs)]
        for epoch in range(self.reached.get(trial, 0), config.training.epochs):
            if (trial, epoch) == self.kill_at:
                self.kill_at = None
                raise self.killer
            observe(record(epoch + 1, values[epoch]))
            self.reached[trial] = epoch + 1
        return max(values)


def record(epoch, accuracy):
    return EpochRecord(
        epoch=epoch,
        learning_rate=0.1,
        loss=1.0,
        terms={"distillation": 1.0},
        validation_accuracy=accuracy,
        validation_cross_entropy=1.0,
        seconds=0.1,
    )


@pytest.fixture
def study(tmp_path):
    """A training to the result of a tuning; the same `name` goes on with the same file."""

    def run(train, name="study", seed=0, config=TUNE, **options):
        return tune(config, DISTILL, train, tmp_path / f"{name}.db", seed=seed, **options)

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed tuning: its result, its training, its folder, and what it told of its progress."""
    folder, training, told = tmp_path_factory.mktemp("tune"), Training(), []
    result = tune(TUNE, DISTILL, training, folder / "study.db", seed=0, tick=lambda *what: told.append(what))
    return SimpleNamespace(result=result, training=training, folder=folder, told=told)


@pytest.fixture
def undisturbed(whole):
    return whole.result


def load(tmp_path, name="study"):
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path}/{name}.db")


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(study, undisturbed):
    assert study(Training(), "same") == undisturbed
    other = study(Training(), "other", seed=1, config=TUNE.model_copy(update={"trials": 2}))
    assert [t.params for t in other.trials[1:]] != [undisturbed.trials[1].params]


def test_no_two_trials_try_the_same_point(undisturbed):
    assert len({tuple(t.params.values()) for t in undisturbed.trials}) == len(undisturbed.trials) == 6


def test_the_first_trial_is_the_configuration_itself(undisturbed):
    assert undisturbed.trials[0].params == {
        "training.learning_rate": 0.02,
        "training.weight_decay": 1e-4,
        "kd.temperature": 3.0,
        "kd.distill_weight": 0.7,
    }


def test_every_value_lies_in_its_declared_range(undisturbed):
    ranges = search_ranges(DISTILL)
    assert set(ranges) == set(undisturbed.trials[0].params)
    for trial in undisturbed.trials:
        for name, value in trial.params.items():
            assert ranges[name].low <= value <= ranges[name].high


def test_the_training_is_handed_what_the_trial_suggests(whole):
    for (number, config), trial in zip(whole.training.calls, whole.result.trials, strict=True):
        assert number == trial.number
        assert config.training.learning_rate == trial.params["training.learning_rate"]
        assert config.training.weight_decay == trial.params["training.weight_decay"]
        assert config.methods[0].temperature == trial.params["kd.temperature"]
        assert config.methods[0].distill_weight == trial.params["kd.distill_weight"]
        assert config.training.patience == 0


def test_trials_are_as_long_as_tuning_says_and_no_longer_than_the_training(study):
    for epochs in (4, 30):
        training = Training()
        study(training, f"epochs {epochs}", config=TuneConfig(trials=1, epochs=epochs))
        assert training.calls[0][1].training.epochs == min(epochs, 9)


def test_the_best_trial_is_the_best_of_the_completed(undisturbed):
    completed = [t for t in undisturbed.trials if t.state == "COMPLETE"]
    best = max(completed, key=lambda t: t.value)
    assert undisturbed.best_value == best.value
    assert undisturbed.best_trial == best.number
    assert undisturbed.best == best.params
    assert undisturbed.best_value > undisturbed.trials[0].value


def test_hopeless_trials_are_stopped_early(undisturbed):
    pruned = [t for t in undisturbed.trials if t.state == "PRUNED"]
    assert pruned
    assert all(TUNE.min_epochs <= t.epochs < 9 for t in pruned)
    assert all(t.epochs == 9 for t in undisturbed.trials if t.state == "COMPLETE")


def test_a_diverging_trial_fails_with_its_reason_and_the_study_goes_on(study):
    result = study(Training(diverging=(0, 2)))
    assert [t.number for t in result.trials if t.state == "FAIL"] == [0, 2]
    assert result.trials[2].reason == "the loss became nan in trial 2"
    assert result.trials[1].reason is None
    assert len(result.trials) == 6
    assert result.best_trial not in (0, 2)


def test_a_trial_that_killed_its_process_fails_with_its_reason_and_the_study_goes_on(study):
    class Deadly(Training):
        def __call__(self, config, trial, observe):
            if trial == 1:
                raise CandidateError("its process was killed by SIGSEGV", "process_died")
            return super().__call__(config, trial, observe)

    result = study(Deadly())
    assert [(t.number, t.reason) for t in result.trials if t.state == "FAIL"] == [
        (1, "its process was killed by SIGSEGV")
    ]
    assert len(result.trials) == 6


def test_a_study_in_which_every_trial_diverges_says_why(study):
    with pytest.raises(
        FailedError, match="none of 2 tuning trials completed: the loss became nan in trial 0; the loss"
    ):
        study(Training(diverging=range(9)), config=TuneConfig(trials=2, epochs=3))


def test_the_study_opens_with_optuna(whole):
    opened = load(whole.folder)
    assert opened.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [t.params for t in opened.trials] == [t.params for t in whole.result.trials]
    assert opened.best_value == whole.result.best_value


ONE = TuneConfig(trials=1, epochs=3)


@pytest.mark.parametrize("folder", ["x?y", "a#b %20 é", "{0}'[*]\\", ":memory:", "caf\udce9\n"])
def test_the_study_lies_where_it_was_asked_for_whatever_the_folder_is_called(folder, tmp_path):
    place = tmp_path / folder
    place.mkdir()
    tune(ONE, DISTILL, Training(), place / "study.db", seed=0)
    assert [path.name for path in place.iterdir()] == ["study.db"]
    assert list(tmp_path.iterdir()) == [place]


def test_a_study_of_another_run_or_of_none_is_refused(study, whole, tmp_path):
    path = tmp_path / "study.db"
    path.write_bytes((whole.folder / "study.db").read_bytes())
    training = Training()
    with pytest.raises(RunDirError, match=r"study.db belongs to another run, or to other data .* or delete it"):
        study(training, owner="another run")
    path.unlink()
    optuna.create_study(storage=f"sqlite:///{path}", study_name=STUDY).ask()
    with pytest.raises(RunDirError, match="belongs to another run"):
        study(training)
    assert training.calls == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:5000], "study.db is damaged.*malformed.*delete it"),
        (lambda data: data[:20000] + b"\xff" * 30000 + data[50000:], "study.db is damaged.*malformed.*delete it"),
        (lambda data: b"hello" * 999, "study.db is damaged.*not a database.*delete it"),
        (None, r"study.db cannot be opened for writing \(unable to open database file\)"),
    ],
)
def test_a_study_that_cannot_be_read_is_named_with_the_cause_and_the_way_out(study, whole, tmp_path, damage, said):
    path = tmp_path / "study.db"
    if damage is None:
        path.mkdir()
    else:
        path.write_bytes(damage((whole.folder / "study.db").read_bytes()))
    with pytest.raises(RunDirError, match=said):
        study(Training())


@pytest.fixture
def locked(whole, tmp_path, monkeypatch):
    """A study that goes on, whose file another connection locks; gives the way to let go of it."""
    path = tmp_path / "study.db"
    path.write_bytes((whole.folder / "study.db").read_bytes())
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("edgestill.distill.study.NOTE_S", 0.0)
    yield holder
    holder.close()


def test_a_locked_study_is_waited_for_and_a_person_told_why(study, locked):
    said = []

    def tell(line):
        said.append(line)
        threading.Timer(0.1, locked.execute, ["ROLLBACK"]).start()

    found = study(Training(), config=TUNE.model_copy(update={"trials": 7}), say=tell)
    assert len(found.trials) == 7
    (line,) = said
    assert line.startswith("waiting up to 120 s: another process has locked")


def test_a_study_that_stays_locked_ends_the_wait_with_its_cause(study, locked, monkeypatch):
    monkeypatch.setattr("edgestill.distill.study.PATIENCE_S", 0.0)
    with pytest.raises(RunDirError, match=r"study.db was locked by another process for 0 s \(a backup, .* resume"):
        study(Training())
    locked.execute("ROLLBACK")
    assert len(study(Training()).trials) == 6


def test_a_lock_in_the_middle_of_a_trial_ends_it_in_one_sentence_and_loses_nothing(study, whole, tmp_path, monkeypatch):
    """The heartbeat's thread meets the lock too, and says nothing of its own."""
    monkeypatch.setattr("edgestill.distill.study.PATIENCE_S", 0.0)
    monkeypatch.setattr("edgestill.distill.study.HEARTBEAT_S", 1)
    errors = []
    monkeypatch.setattr(threading, "excepthook", lambda found: errors.append(found))
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None)

    class Locking(Training):
        def __call__(self, config, trial, observe):
            if trial == 2 and holder.in_transaction is False and not self.reached.get("locked"):
                self.reached["locked"] = True
                holder.execute("BEGIN EXCLUSIVE")
            return super().__call__(config, trial, observe)

    training = Locking()
    with pytest.raises(RunDirError, match="was locked by another process"):
        study(training)
    holder.execute("ROLLBACK")
    assert study(training) == whole.result
    assert errors == []


def test_a_finished_study_is_not_trained_again(whole):
    training = Training()
    assert tune(TUNE, DISTILL, training, whole.folder / "study.db", seed=0) == whole.result
    assert training.calls == []


@pytest.mark.parametrize(
    ("killer", "kill_at"),
    [
        (KeyboardInterrupt, [(0, 5)]),
        (SystemExit, [(3, 0)]),
        (OSError, [(4, 1)]),
        (SystemExit, [(0, 0), (1, 7), (5, 0)]),
    ],
)
def test_a_killed_study_ends_as_an_undisturbed_one(study, whole, tmp_path, killer, kill_at):
    """By Ctrl-C, by a termination, by a full disk; before a trial's first epoch and in the middle of one."""
    training = Training(killer=killer)
    for when in kill_at:
        training.kill_at = when
        with pytest.raises(killer):
            study(training)
    assert study(training) == whole.result
    found, expected = load(tmp_path).trials, load(whole.folder).trials
    assert all(trial.state.is_finished() for trial in found)
    assert [trial.state for trial in found] == [trial.state for trial in expected]
    assert [trial.intermediate_values for trial in found] == [trial.intermediate_values for trial in expected]


FIRST = (
    {"training.learning_rate": 0.1, "training.weight_decay": 1e-4, "kd.temperature": 5.0, "kd.distill_weight": 0.8},
    {"training.learning_rate": 0.3, "training.weight_decay": 1e-3, "kd.temperature": 2.0, "kd.distill_weight": 0.5},
    {"kd.temperature": 4.0},  # of another recipe
)


def test_given_values_are_tried_after_the_configurations_own_and_count_as_trials(study, undisturbed):
    found = study(Training(), first=FIRST)
    assert [trial.params for trial in found.trials[:3]] == [undisturbed.trials[0].params, *FIRST[:2]]
    assert len(found.trials) == 6
    assert found.best_value > undisturbed.trials[0].value


@pytest.mark.parametrize("kill_at", [(0, 3), (1, 0), (4, 1)])
def test_a_study_that_begins_with_given_values_survives_a_kill(study, kill_at, monkeypatch):
    whole = study(Training(), "whole", first=FIRST)
    enqueue, count = optuna.Study.enqueue_trial, iter(range(9))

    def killed(self, *given, **named):
        if next(count) == 2:
            raise KeyboardInterrupt
        return enqueue(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", killed)
        with pytest.raises(KeyboardInterrupt):  # between two entries
            study(Training(), first=FIRST)
    training = Training(kill_at=kill_at)
    with pytest.raises(KeyboardInterrupt):
        study(training, first=FIRST)
    assert study(training, first=FIRST) == whole


def test_what_the_training_raises_comes_through_as_it_was_raised(study):
    class FullError(OSError):
        pass

    with pytest.raises(FullError):
        study(Training((1, 0), FullError))


def test_a_dead_process_trial_is_failed_and_tried_again(study, tmp_path):
    """Another process on the same storage died long ago in the middle of a trial: its heartbeat is old."""
    left = []

    class Joined(Training):
        def __call__(self, config, trial, observe):
            if not left:
                other = load(tmp_path).ask()
                other.suggest_float("training.learning_rate", 0.005, 0.5, log=True)
                left.append(other)
                with sqlite3.connect(tmp_path / "study.db", timeout=60) as database:
                    database.execute(
                        "INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, '2001-01-01 00:00:00')",
                        (other._trial_id,),
                    )
            return super().__call__(config, trial, observe)

    result = study(Joined(), config=TuneConfig(trials=4, epochs=3, startup_trials=3))
    (stale,) = [t for t in result.trials if t.state == "FAIL"]
    assert stale.number == left[0].number
    again = [t for t in load(tmp_path).trials if t.system_attrs.get("failed_trial") == stale.number]
    assert len(again) == 1
    assert again[0].state.is_finished()
    assert again[0].params["training.learning_rate"] == left[0].params["training.learning_rate"]


def test_configured_values_outside_a_tuning_range_are_moved_to_its_end():
    outside = with_hyperparameters(DISTILL, {"training.learning_rate": 20.0, "kd.temperature": 50.0})
    values = configured_values(outside, search_ranges(outside))
    assert values["training.learning_rate"] == 0.5
    assert values["kd.temperature"] == 16.0
    assert values["kd.distill_weight"] == 0.7


def test_hyperparameters_are_put_in_by_name_and_checked():
    found = with_hyperparameters(DISTILL, {"kd.temperature": 9.0, "training.weight_decay": 0.001})
    assert found.methods[0].temperature == 9
    assert found.training.weight_decay == 0.001
    assert found.training.learning_rate == 0.02
    assert with_hyperparameters(DISTILL, {}) == DISTILL
    with pytest.raises(ValueError, match="less than or equal to 1"):
        with_hyperparameters(DISTILL, {"kd.distill_weight": 1.5})


def test_hyperparameters_leave_all_else_of_the_configuration_alone():
    asked = DistillConfig.model_validate({"driver": {"name": "generations", "generations": 3}, "start": "pretrained"})
    found = with_hyperparameters(asked, {"kd.temperature": 9.0})
    assert found.driver == asked.driver
    assert found.start == "pretrained"


def test_progress_counts_finished_trials_and_tells_the_best(whole):
    assert [done for done, _, _ in whole.told] == list(range(7))
    assert whole.told[0] == (0, 6, "")
    assert whole.told[-1] == (6, 6, f"best validation accuracy {whole.result.best_value:.2%}")
