"""Studies on a PostgreSQL server: as in a file, through the server's death, and without a trace of the password."""

import logging
import math
import threading
import time

import optuna
import pytest
from postgres import PASSWORD, postgres

from edgestill.distill import study_server
from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.study_server import StudyServer, connector, exists, held, study_place
from edgestill.distill.tune import tune
from edgestill.pipeline.device import DeviceConfig
from edgestill.pipeline.errors import RunDirError, UserError
from edgestill.pipeline.training.state import EpochRecord

pytestmark = pytest.mark.engines
__all__ = ["postgres"]

DISTILL = DistillConfig(methods=(KDConfig(),), training=StudentTrainingConfig(epochs=9, learning_rate=0.02))
TUNE = TuneConfig(trials=5, epochs=9, startup_trials=2)


def training(disturb=lambda trial, epoch: None):
    """A landscape in place of a training: best near learning rate 0.1, reached over the epochs."""
    reached = {}

    def train(config, trial, observe):
        height = 0.9 - 0.1 * math.log10(config.training.learning_rate / 0.1) ** 2
        values = [height * (1 - 0.5 ** (epoch + 1)) for epoch in range(config.training.epochs)]
        for epoch in range(reached.get(trial, 0), config.training.epochs):
            disturb(trial, epoch)
            observe(
                EpochRecord(epoch=epoch + 1, learning_rate=0.1, loss=1.0, terms={}, validation_accuracy=values[epoch],
                            validation_cross_entropy=1.0, seconds=0.1)
            )  # fmt: skip
            reached[trial] = epoch + 1
        return max(values)

    return train


@pytest.fixture
def place(postgres, tmp_path, monkeypatch):
    """The study of a run of the test, by the environment's address."""
    monkeypatch.setenv("EDGESTILL_STUDIES", postgres.address())
    return study_place(None, tmp_path / "tune" / "study.db")


@pytest.fixture(scope="module")
def in_a_file(tmp_path_factory):
    return tune(TUNE, DISTILL, training(), tmp_path_factory.mktemp("file") / "study.db", seed=0)


def test_a_study_on_a_server_is_the_one_in_a_file_and_opens_with_optuna(place, in_a_file, postgres):
    assert not exists(place)
    assert tune(TUNE, DISTILL, training(), place, seed=0, owner="ours") == in_a_file
    assert exists(place)
    storage = postgres.address().replace("postgresql:", "postgresql+psycopg:")
    assert optuna.load_study(study_name=place.name, storage=storage).best_value == in_a_file.best_value
    with pytest.raises(RunDirError, match="belongs to another run"):
        tune(TUNE, DISTILL, training(), place, seed=0, owner="another's")


def test_a_study_that_another_process_works_on_is_refused(place):
    with (
        held(place, connector(place, lambda line: None)),
        pytest.raises(RunDirError, match="is worked on by another process"),
    ):
        tune(TUNE, DISTILL, training(), place, seed=0)


def test_a_server_that_dies_is_waited_for_and_changes_nothing(place, in_a_file, postgres, monkeypatch):
    monkeypatch.setattr(study_server, "NOTE_S", 0.1)
    said = []

    def disturb(trial, epoch):
        if (trial, epoch) == (2, 1) and not said:
            postgres.kill()
            threading.Timer(1.0, postgres.start).start()

    found = tune(TUNE, DISTILL, training(disturb), place, seed=0, say=said.append)
    assert found == in_a_file
    assert "waiting up to 60 s: the study" in said[0]


def test_a_server_that_stays_away_ends_the_run_and_resuming_completes_it(place, in_a_file, postgres, monkeypatch):
    monkeypatch.setattr(study_server, "PATIENCE_S", 1.0)
    dead = []

    def disturb(trial, epoch):
        if (trial, epoch) == (2, 1) and not dead:
            dead.append(time.monotonic())
            postgres.kill()

    train = training(disturb)
    with pytest.raises(RunDirError, match=r"was out of reach for 1 s .* start the server, then resume the run") as gone:
        tune(TUNE, DISTILL, train, place, seed=0)
    assert len(str(gone.value).splitlines()) == 1
    assert time.monotonic() - dead[0] < 20
    postgres.start()
    assert tune(TUNE, DISTILL, train, place, seed=0) == in_a_file


def test_no_error_log_or_repr_has_the_password(postgres, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    told = []
    for address in (
        postgres.address(password=f"{PASSWORD}-wrong"),
        postgres.address("absent"),
        f"postgresql://tuner:{PASSWORD}%zz@127.0.0.1/studies",
        f"mysql://tuner:{PASSWORD}@127.0.0.1/studies",
    ):
        monkeypatch.setenv("EDGESTILL_STUDIES", address)
        with pytest.raises(UserError) as refused:
            exists(study_place(None, tmp_path / "tune" / "study.db"))
        told.append(str(refused.value))
    assert "password authentication failed" in told[0]
    assert 'database "absent" does not exist' in told[1]
    place = StudyServer("a", "EDGESTILL_STUDIES", postgres.address())
    told += [repr(place), str(place), caplog.text, *capfd.readouterr()]
    assert PASSWORD not in "\n".join(told)


def test_a_password_in_the_configuration_is_refused_unquoted():
    for address in (f"postgresql://tuner:{PASSWORD}@host/studies", f"postgresql://host/studies?password={PASSWORD}"):
        with pytest.raises(ValueError, match="holds a password") as refused:
            DeviceConfig(studies=address)
        assert PASSWORD not in str(refused.value)
    assert "studies" not in DeviceConfig().model_dump()


def test_another_machine_is_spoken_to_over_tls_unless_the_address_says_otherwise(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.delenv("PGSSLMODE", raising=False)

    def mode(address):
        return StudyServer("a", "device.studies", address).settings().get("sslmode")

    assert mode("postgresql://db.example/studies") == "require"
    assert mode("postgresql://db.example/studies?sslmode=verify-full") == "verify-full"
    assert mode("postgresql://127.0.0.1/studies") is None
