"""Active distillation: what is hidden, who is asked, and a run that goes on after a kill asking nobody twice."""

import dataclasses

import numpy as np
import pytest
import torch

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.drivers.active import Active, ActiveConfig, area_under_curve
from edgestill.distill.drivers.base import in_memory
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.errors import ConfigError, WaitingError
from edgestill.pipeline.teachers.outputs import OutputsNetwork

CPU = torch.device("cpu")


class Killed(BaseException):
    pass


class Teacher(torch.nn.Module):
    """A teacher that remembers what it was asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, []

    def forward(self, inputs):
        self.asked += [row.sum().item() for row in inputs]
        return self.network(inputs)


class Classroom:
    """Trains lessons as the stage does; `dies_at` is the name of a lesson that is not reached."""

    def __init__(self, make_network, data, methods=("dho",)):
        self.data, self.make, self.methods = data, make_network, list(methods)
        self.teacher, self.lessons, self.dies_at = Teacher(make_network(1, task=data.task)), [], None

    def __call__(self, lesson):
        if lesson.name == self.dies_at:
            raise Killed
        self.lessons.append(lesson)
        config = DistillConfig(methods=self.methods, training=StudentTrainingConfig(epochs=1))
        teacher = self.teacher.network if lesson.teacher is None else lesson.teacher
        student = self.make(10 + lesson.draw, task=self.data.task)
        return distill(student, teacher, lesson.splits, config, seed=0, device=CPU)


@pytest.fixture
def data():
    whole = splits(image_task(classes=3), train=48)
    return dataclasses.replace(whole, sizes={"train": 48})


@pytest.fixture
def classroom(make_network, data):
    return Classroom(make_network, data)


def driver(logs=None, **settings):
    given = {"oracle": "dataset", "start": 2, "rounds": 2, "budget": 5} | settings
    return Active(ActiveConfig(**given), logs or in_memory())


def run(classroom, active):
    return active.run(classroom, classroom.teacher, classroom.data)


def labelled(lesson):
    return int((lesson.splits.train.targets != UNLABELLED).sum())


def test_other_stages_see_the_labels_of_the_start_alone(data):
    begun = driver().at_start(data)
    known = begun.train.targets != UNLABELLED
    assert torch.bincount(begun.train.targets[known]).tolist() == [2, 2, 2]
    assert torch.equal(begun.train.targets[known], data.train.targets[known])
    assert begun.sizes == {"train": 6, "unlabelled": 42}
    alone = driver(oracle="teacher").at_start(data)
    assert len(alone.train) == 6  # the teacher is asked about the others by the driver alone


def test_each_round_adds_the_true_labels_of_what_was_chosen(classroom):
    found = run(classroom, driver())
    assert [lesson.name for lesson in classroom.lessons] == ["round_0", "round_1", "round_2"]
    assert [labelled(lesson) for lesson in classroom.lessons] == [6, 11, 16]
    last = classroom.lessons[-1].splits.train
    known = last.targets != UNLABELLED
    assert torch.equal(last.targets[known], classroom.data.train.targets[known])
    assert len(last) == 48  # the pool is learnt from the teacher's answers
    scores = [found.measures[f"round_{n}.validation"] for n in range(3)]
    assert found.measures["active.area_under_curve"] == pytest.approx(np.trapezoid(scores, [0, 5, 10]) / 10)


def test_a_pool_that_is_smaller_than_the_budget_ends_the_rounds(classroom):
    run(classroom, driver(budget=40, rounds=9))
    assert [labelled(lesson) for lesson in classroom.lessons] == [6, 46, 48]


@pytest.mark.parametrize("acquisition", ["pcoreset", "rad", "badge"])
@pytest.mark.parametrize("dies_at", ["round_0", "round_1", "round_2"])
def test_a_killed_driver_goes_on_to_the_same_weights_without_a_round_done_twice(
    make_network, data, acquisition, dies_at
):
    whole, again, logs = Classroom(make_network, data), Classroom(make_network, data), in_memory()
    expected = run(whole, driver(acquisition=acquisition))
    again.dies_at = dies_at
    with pytest.raises(Killed):
        run(again, driver(logs, acquisition=acquisition))
    again.dies_at = None
    found = run(again, driver(logs, acquisition=acquisition))
    assert found.measures == expected.measures
    for one, other in zip(found.student.parameters(), expected.student.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [lesson.name for lesson in again.lessons] == ["round_0", "round_1", "round_2"]


def test_people_are_waited_for_and_their_answers_are_learnt(classroom, data):
    active = driver(oracle="people", rounds=1)
    with pytest.raises(WaitingError, match="round 1 waits for the labels of 5 examples"):
        run(classroom, active)
    asked = active.questions(data)
    names = list(asked.split.ids)
    active.keep(data, dict.fromkeys(names[:3], 1))
    assert active.questions(data).answers == dict.fromkeys(names[:3], 1)
    assert active.questions(data).unanswered == names[3:]
    with pytest.raises(WaitingError, match="labels of 2 examples"):
        run(classroom, active)
    active.keep(data, {names[3]: 0, names[4]: None, names[0]: 2})
    assert active.questions(data) is None
    run(classroom, active)
    assert [lesson.name for lesson in classroom.lessons] == ["round_0", "round_1"]
    train = classroom.lessons[-1].splits.train
    found = {name: int(target) for name, target in zip(train.ids, train.targets, strict=True) if name in names}
    assert found == dict(zip(names, [2, 1, 1, 0, UNLABELLED], strict=True))
    assert torch.equal(active.afterwards(data).splits.train.targets, train.targets)


def test_the_teacher_is_asked_once_about_the_labelled_and_the_chosen_and_nothing_else(make_network, data):
    classroom = Classroom(make_network, data)
    found = run(classroom, driver(oracle="teacher", acquisition="rad", max_queries=14))
    assert found.measures["active.queries"] == 14  # 6 labelled, 5 and, at the limit, 3 chosen
    assert len(classroom.teacher.asked) == len(set(classroom.teacher.asked)) == 14
    last = classroom.lessons[-1]
    assert len(last.splits.train) == 14
    assert labelled(last) == 6
    inputs = last.splits.train.batch(torch.arange(14)).inputs
    torch.testing.assert_close(last.teacher(inputs), classroom.teacher.network.eval()(inputs))


def test_answers_in_a_file_are_a_teacher_to_ask(classroom, data):
    whole = dataclasses.replace(data.train, ids=np.array([f"row {at}" for at in range(48)]))
    logits = classroom.teacher.network.eval()(whole.batch(torch.arange(48)).inputs).detach()
    file = OutputsNetwork.of(whole.ids, logits)
    file.meet(whole, "the file")
    found = driver(oracle="teacher", rounds=1).run(classroom, file, dataclasses.replace(data, train=whole))
    assert found.measures["active.queries"] == 11
    last = classroom.lessons[-1]
    rows = [int(name.split()[1]) for name in last.splits.train.ids]
    torch.testing.assert_close(last.teacher(last.splits.train.batch(torch.arange(11)).inputs), logits[rows])


def test_a_teacher_whose_run_was_killed_between_answers_is_not_asked_for_them_again(make_network, data, monkeypatch):
    monkeypatch.setattr("edgestill.distill.drivers.oracles._AT_ONCE", 2)
    classroom, memory, appended = Classroom(make_network, data), in_memory(), []

    def logs(name, *, lasting=False):
        log = memory(name, lasting=lasting)

        class Dying:
            entries = log.entries

            def append(self, entry, *, durable=False):
                log.append(entry, durable=durable)
                appended.append(name)
                if appended.count("teacher") == 5 and name == "teacher":
                    raise Killed

        return Dying()

    settings = {"oracle": "teacher", "rounds": 1}
    with pytest.raises(Killed):
        run(classroom, driver(logs, **settings))
    found = run(classroom, driver(memory, **settings))
    assert len(classroom.teacher.asked) == len(set(classroom.teacher.asked)) == 11
    undisturbed = run(Classroom(make_network, data), driver(**settings))
    for one, other in zip(found.student.parameters(), undisturbed.student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rad_is_told_the_teachers_errors_on_the_first_labels(classroom, data):
    found = run(classroom, driver(acquisition="rad", rounds=1))
    begun = driver().at_start(data).train.labelled()
    answers = classroom.teacher.network.eval()(begun.batch(torch.arange(6)).inputs).argmax(1)
    assert found.measures["round_0.teacher_error"] == pytest.approx(float((answers != begun.targets).double().mean()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"oracle": "dataset"}, "set start"),
        ({"oracle": "people", "max_queries": 9}, "limits the teacher"),
        ({"acquisition": "pcorset"}, "pcoreset"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ActiveConfig(**settings)


def test_a_teacher_that_is_asked_gives_logits_alone():
    with pytest.raises(ValueError, match="method 'nd' needs the embedding"):
        DistillConfig.model_validate({"methods": ["nd"], "driver": {"name": "active", "oracle": "teacher"}})


def test_data_without_anything_to_ask_about_are_refused_at_the_start(data):
    with pytest.raises(ConfigError, match=r"data\.unlabelled"):
        driver(oracle="people", start=None).at_start(data)
    with pytest.raises(ConfigError, match="max_queries 5 is fewer than the 6 labelled"):
        driver(oracle="teacher", max_queries=5).at_start(data)
    augmented = dataclasses.replace(data, augment=data.augment.model_copy(update={"flip": True}))
    with pytest.raises(ConfigError, match=r"leave data\.augment out"):
        driver(oracle="teacher").at_start(augmented)


def test_the_area_under_a_learning_curve_is_its_mean_height():
    assert area_under_curve([0, 10, 40], [0.2, 0.4, 0.4]) == pytest.approx((10 * 0.3 + 30 * 0.4) / 40)
    assert area_under_curve([0], [0.7]) == 0.7
