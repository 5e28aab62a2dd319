"""A training as a value: in parts, in another process and here it has the same bits; a lost worker is told."""

import os
import pickle
import sys

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.elsewhere.training import Teaching, Training, done
from edgestill.distill.train import distill
from edgestill.pipeline.device import FP32
from edgestill.pipeline.engines import Answer
from edgestill.pipeline.engines.dask import DaskConfig
from edgestill.pipeline.engines.machine import ProcessesConfig
from edgestill.pipeline.engines.workers import Workers
from edgestill.pipeline.errors import CandidateError, TrainingError
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.training.metrics import right_answers

CPU = torch.device("cpu")
MODULE = """
import os
import signal
from pathlib import Path

from edgestill.pipeline.networks.cifar_resnet import CifarResNet


class Deadly(CifarResNet):
    def forward_features(self, inputs):
        spared = Path(__file__).with_name(self.spared)
        if self.training and not spared.exists():
            spared.parent.joinpath("once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward_features(inputs)
"""


def told(**training):
    given = {"epochs": 3, "batch_size": 30, "patience": 0, "learning_rate": 0.02} | training
    return DistillConfig.model_validate({"methods": [{"name": "kd"}], "training": given})


@pytest.fixture
def lesson(make_task, make_splits, make_network):
    """A teaching and a function to its trainings, all with the same first weights."""
    splits = make_splits(make_task())
    teaching = Teaching(make_network(1), splits, CPU, FP32, threads=1)
    return teaching, lambda **changes: Training("one", make_network(2), told(), seed=5, **changes)


def test_a_training_in_parts_sent_as_bytes_has_the_bits_of_a_whole_one(lesson):
    teaching, training = lesson
    whole = distill(training().student, teaching.teacher, teaching.splits, told(), seed=5, device=CPU)
    sent = pickle.loads(pickle.dumps(teaching))
    state = None
    for until in (1, 2):
        part = done(Answer(sent(pickle.loads(pickle.dumps(training(state=state, until=until)))), 0))
        assert (part.fitted, len(part.curve)) == (None, until)
        state = part.state
        again = done(Answer(sent(training(state=state, until=until)), 0))  # a kill before it was told
        assert (again.curve, again.state) == (part.curve, state)
    last = done(Answer(sent(training(state=state, until=3, with_answers=True, with_weights=True)), 0))
    assert last.weights == weights_bytes(whole.student)
    assert [e.validation_accuracy for e in last.curve] == [e.validation_accuracy for e in whole.fitted.curve]
    assert (last.right == right_answers(whole.student, teaching.splits.validation, CPU)).all()
    assert last.fitted.best == whole.fitted.best
    finished = done(Answer(sent(training(state=last.state, until=3, with_weights=True)), 0))
    assert finished.weights == last.weights


def test_a_failure_of_a_training_is_raised_where_it_is_asked_for(lesson):
    teaching, training = lesson
    broken = training()
    for parameter in broken.student.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    found = teaching(broken)
    with pytest.raises(TrainingError, match="became"):
        done(Answer(pickle.loads(pickle.dumps(found)), 0))


def test_a_worker_that_was_lost_fails_its_training_alone():
    with pytest.raises(CandidateError, match="was killed by SIGKILL") as found:
        done(Answer(None, 1, "its process was killed by SIGKILL"))
    assert found.value.type == "process_died"


@pytest.fixture
def deadly(lesson, tmp_path, monkeypatch):
    """The name of a file that spares it -> a training that kills its process."""
    (tmp_path / "deadly_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    import deadly_plugin

    def make(spared):
        training = lesson[1](with_weights=True)
        training.student.__class__, training.student.spared = deadly_plugin.Deadly, spared
        return training

    yield make
    del sys.modules["deadly_plugin"]


@pytest.mark.engines
def test_a_process_that_dies_costs_one_more_try_and_at_the_second_death_its_own_training(lesson, deadly):
    teaching, training = lesson
    with Workers(ProcessesConfig(), 1) as workers:
        once, never = workers.answers(teaching, [deadly("once"), deadly("never")])
    assert done(once).weights == teaching(training(with_weights=True)).weights
    assert (once.retried, never.retried) == (1, 1)
    with pytest.raises(CandidateError, match="SIGKILL"):
        done(never)


@pytest.mark.engines
def test_a_training_by_a_worker_of_a_cluster_has_the_same_bits(lesson):
    pytest.importorskip("distributed")
    teaching, training = lesson
    with Workers(DaskConfig(), 1) as workers:
        [answer] = workers.answers(teaching, [training(with_weights=True)])
    assert done(answer).weights == teaching(training(with_weights=True)).weights
