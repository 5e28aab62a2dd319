"""The federated driver: clients in one process, the student that ships, resuming, and answers from elsewhere."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

pytest.importorskip("flwr.app")

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.drivers import DRIVERS, Room
from edgestill.distill.drivers.federated import Federated, FederatedConfig, make_federation, owned_and_pool
from edgestill.distill.federation import flower
from edgestill.distill.federation.answers_file import answers_bytes, read_answers
from edgestill.distill.federation.client import Client
from edgestill.distill.federation.strategies import Answers
from edgestill.distill.train import distill
from edgestill.flows.config import load_config
from edgestill.pipeline.conformance import samples
from edgestill.pipeline.data.datasets import npz_sizes
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.data.teacher_cache import split_digest
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes
from edgestill.pipeline.teachers.outputs import OutputsNetwork

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
BRIEF = {"clients": 2, "rounds": 2, "training": {"local_epochs": 1, "taught_epochs": 1, "batch_size": 8}}


class Workplace:
    """Surroundings of the driver, as the stage gives them."""

    def __init__(self, make_network, data):
        self.make, self.data, self.states, self.said, self.lessons = make_network, data, [], [], []

    def room(self, save=None):
        widths = ((4, 6, 8), (3, 4, 5))
        return Room(
            device=CPU,
            seed=lambda *names: derive_seed(0, *names),
            students=lambda count, different: [
                self.make(n, widths=widths[n % 2 * different], task=self.data.task) for n in range(count)
            ],
            saved=lambda: read_state(self.states[-1]) if self.states else None,
            save=save or (lambda state: self.states.append(state_bytes(state))),
            tell=self.said.append,
        )

    def learn(self, lesson):
        self.lessons.append(lesson)
        config = DistillConfig(training=StudentTrainingConfig(epochs=2, batch_size=8))
        student = self.make(50, task=self.data.task)
        return distill(student, lesson.teacher, lesson.splits, config, seed=0, device=CPU)

    def run(self, save=None, **settings):
        driver = Federated(FederatedConfig.model_validate(BRIEF | settings))
        driver.room = self.room(save)
        return driver.run(self.learn, None, self.data)


@pytest.fixture
def workplace(make_network):
    return Workplace(make_network, samples.splits(samples.image_task(classes=3), train=48))


def weights(found):
    return list(found.student.state_dict().values())


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(weights(one), weights(other), strict=True))


def test_the_student_that_ships_is_taught_on_the_pool_without_a_label_by_the_clients_mixture(workplace):
    found = workplace.run(strategy="average")
    (lesson,) = workplace.lessons
    pool = lesson.splits.train
    assert len(pool) == 14  # .3 of 48
    assert set(pool.targets.tolist()) == {UNLABELLED}
    assert isinstance(lesson.teacher, OutputsNetwork)
    assert lesson.splits.validation is workplace.data.validation
    told = found.measures
    assert told["federated.pool"] == 14
    assert told["federated.pool_answered"] == 1
    assert told["client_1.examples"] + told["client_2.examples"] == 34
    assert told["federated.left_out"] == 0
    each = [told[f"client_{n}.bytes_sent"] for n in (1, 2)]
    assert told["federated.bytes_from_a_client_a_round"] == pytest.approx(sum(each) / 4)
    assert each[0] > 2 * 14 * (4 + 3 * 4)  # two rounds of an index and three logits an example
    assert told["federated.clients_validation"] == pytest.approx(
        (told["client_1.validation"] + told["client_2.validation"]) / 2
    )


def test_a_filter_sends_fewer_bytes_and_two_runs_are_the_same(workplace):
    plain, filtered, again = (
        workplace.run(strategy=name, division="class", save=lambda state: None)
        for name in ("average", "edgefd", "edgefd")
    )
    sent = "federated.bytes_from_a_client_a_round"
    assert filtered.measures[sent] < plain.measures[sent]
    assert same(filtered, again)
    assert not same(filtered, plain)


class Killed(BaseException):
    pass


def test_a_killed_run_repeats_no_finished_round_and_ships_the_same_student(workplace, monkeypatch):
    whole = workplace.run(rounds=3, save=lambda state: None)
    learnt = []
    real = Client.learn
    monkeypatch.setattr(
        Client, "learn", lambda self, number, *rest: (learnt.append(number), real(self, number, *rest))[1]
    )

    def kill(state):
        workplace.states.append(state_bytes(state))
        if len(workplace.states) == 2:
            raise Killed

    with pytest.raises(Killed):
        workplace.run(rounds=3, save=kill)
    assert learnt == [1, 1, 2, 2]
    ended = workplace.run(rounds=3)
    assert learnt == [1, 1, 2, 2, 3, 3]
    assert same(ended, whole)
    assert ended.measures == whole.measures


def test_the_pool_is_the_datas_own_unlabelled_examples_where_it_has_some(workplace):
    data = workplace.data
    train = data.train
    half = torch.arange(len(train)) % 2 == 0
    mixed = train.__class__(train.images, torch.where(half, UNLABELLED, train.targets))
    owned, pool = owned_and_pool(workplace.data.__class__(**{**vars(data), "train": mixed}), 0.1, 0)
    assert (len(owned), len(pool)) == (24, 24)
    assert bool((owned.targets != UNLABELLED).all())
    owned, pool = owned_and_pool(data, 0.25, 0)
    assert (len(owned), len(pool)) == (36, 12)
    everything = torch.cat([owned.images, pool.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 48  # each is in one of them
    assert torch.equal(owned_and_pool(data, 0.25, 0)[1].images, pool.images)
    assert not torch.equal(owned_and_pool(data, 0.25, 1)[1].images, pool.images)


def test_answers_of_other_processes_are_taught_if_they_are_to_this_pool(workplace, tmp_path, monkeypatch):
    task = workplace.data.task
    _, pool = owned_and_pool(workplace.data, 0.3, derive_seed(0, "pool"))
    answers = Answers(torch.tensor([0, 3, 5]), torch.eye(3))
    path = tmp_path / "answers.npz"
    path.write_bytes(answers_bytes(answers, split_digest(pool)))
    workplace.run(answers=path)
    (lesson,) = workplace.lessons
    assert torch.equal(lesson.splits.train.images, pool.images[answers.index])
    inputs = lesson.splits.train.batch(torch.arange(3)).inputs
    torch.testing.assert_close(lesson.teacher(inputs), torch.eye(3))
    with pytest.raises(DataError, match="answers another public pool"):
        read_answers(path, samples.examples(task, 20), 3)
    with pytest.raises(DataError, match=r"shape \[3, 3\] .*; 4 finite"):
        read_answers(path, pool, 4)
    for index, logits, said in (
        ([0, 3, len(pool)], torch.eye(3), "does not have"),
        ([0, 3, -1], torch.eye(3), "does not have"),
        ([0, 3, 3], torch.eye(3), "an example twice"),
        ([[0], [3], [5]], torch.eye(3), r"examples of shape \[3, 1\]"),
        ([0.0, 3.0, 5.0], torch.eye(3), "float32"),
        ([0, 3, 5], torch.eye(3) / 0, "not finite"),
    ):
        path.write_bytes(answers_bytes(Answers(torch.tensor(index), logits), split_digest(pool)))
        with pytest.raises(DataError, match=said):
            read_answers(path, pool, 3)
    monkeypatch.setattr(npz_sizes, "_SMALL", 1000)
    np.savez_compressed(path, pool=split_digest(pool), index=np.arange(3), logits=np.zeros((2**18, 3), np.float32))
    with pytest.raises(DataError, match="unpacks to"):
        read_answers(path, pool, 3)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no answers of a federation"):
        read_answers(path, pool, 3)


def test_texts_have_no_pixels_to_filter_by(workplace):
    data = samples.splits(samples.text_task(classes=3), train=24)
    with pytest.raises(ConfigError, match="features: texts have no pixels; set it to embedding"):
        make_federation(FederatedConfig(), data, data.train)
    by_embedding = FederatedConfig.model_validate({"strategy": {"name": "edgefd", "features": "embedding"}})
    assert make_federation(by_embedding, data, data.train).pool == 24


def test_the_driver_is_in_the_table_and_a_configuration_names_it():
    config = DistillConfig.model_validate({"driver": {"name": "federated", "strategy": "knfu", "clients": 3}})
    assert isinstance(config.driver, FederatedConfig)
    assert config.driver.strategy.beta == 10.0
    assert DRIVERS["federated"] is Federated
    with pytest.raises(
        ValidationError, match="method 'rkd' needs the embedding of its teacher, which driver 'federated'"
    ):
        DistillConfig.model_validate({"driver": "federated", "methods": ["kd", "rkd"]})


def test_a_configuration_for_which_flower_is_missing_is_refused_before_anything_is_trained(monkeypatch, tmp_path):
    driver = {"name": "federated"}
    assert FederatedConfig.model_validate(driver, context={"check_files": True})
    monkeypatch.setattr(flower, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match="pip install --no-deps flwr=="):
        FederatedConfig.model_validate(driver, context={"check_files": True})
    (tmp_path / "answers.npz").touch()
    given = driver | {"answers": tmp_path / "answers.npz"}
    assert FederatedConfig.model_validate(given, context={"check_files": True})


@pytest.mark.parametrize("setting", ["prune.method=l1", "qat.mode=always"])
def test_fine_tuning_by_what_the_clients_cannot_see_is_refused(setting):
    with pytest.raises(ConfigError, match="a student of driver 'federated' never saw"):
        load_config(preset="digits", settings=["distill.driver=federated", setting])


def test_no_word_of_it_promises_what_is_not_measured():
    files = [
        *ROOT.glob("distill/federation/**/*.py"), *ROOT.glob("flows/federation/*.py"),
        ROOT / "distill/drivers/federated.py", ROOT / "docs/howto/federated.md", ROOT / "benchmarks/federated.py",
    ]  # fmt: skip
    assert len(files) > 15
    for path in files:
        assert not re.search("privat|privac|confidential|anonym", path.read_text(encoding="utf-8"), re.IGNORECASE), path
