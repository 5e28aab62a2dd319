"""Drivers: generations of students, against kernel ridge regression, where all is known, and on small networks."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.drivers import DRIVERS, Lesson
from edgestill.distill.drivers.generations import (
    Generations,
    GenerationsConfig,
    MixedTeacher,
    mixed_logits,
    optimal_label_weight,
)
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits

CPU = torch.device("cpu")

# Mobahi, Farajtabar and Bartlett 2020's draw of a noisy sine, as Borup and Andersen's toy example uses it
X = np.arange(0, 1.1, 0.1)[:, None]
Y = np.array(
    [0.38476636465198066, 1.2333967683416893, 1.33232242218057, 0.69201594888895180, -0.29756145531871736,
     -0.24189291901377769, -0.7964485769175675, -0.9616480167034174, -0.49672509509916934, -0.3469066003991437,
     0.5589512650600734]
)[:, None]  # fmt: skip
GRID = np.arange(0, 1.01, 0.01)[:, None]
LAMBDA, GAMMA = 0.2, 80
KERNEL = rbf_kernel(X, gamma=GAMMA)


def fit(targets, ridge=LAMBDA):
    """Coefficients of kernel ridge regression."""
    return np.linalg.solve(KERNEL + ridge * np.eye(len(X)), targets)


def generations(label_weight, steps):
    """Losses to the true sine of each generation, and of infinitely many."""
    target, losses = Y, []
    for _ in range(steps):
        found = fit(label_weight * Y + (1 - label_weight) * target)
        target = KERNEL @ found
        losses.append(true_loss(found))
    limit = fit(Y, LAMBDA / label_weight) if label_weight else np.zeros_like(Y)
    return losses, true_loss(limit)


def true_loss(coefficients):
    return float(np.mean((rbf_kernel(GRID, X, gamma=GAMMA) @ coefficients - np.sin(2 * np.pi * GRID)) ** 2))


def test_the_papers_toy_has_its_losses_without_labels_and_with_them():
    alone, limit = generations(0.0, 6)
    assert alone == pytest.approx([0.16477, 0.15076, 0.14915, 0.15561, 0.16735, 0.18251], abs=5e-6)
    assert limit == pytest.approx(0.49505, abs=5e-6)
    guided, limit = generations(0.35, 6)
    assert guided == pytest.approx([0.16477, 0.15424, 0.15089, 0.14983, 0.14954, 0.14948], abs=5e-6)
    assert limit == pytest.approx(0.14959, abs=5e-6)


def test_infinitely_many_generations_are_one_fit_with_lambda_over_alpha():
    losses, limit = generations(0.25, 400)
    assert losses[-1] == pytest.approx(limit, abs=1e-9)


def test_the_closed_form_share_of_the_labels_is_the_best_of_a_fine_grid():
    by_labels, by_teacher = (torch.tensor(KERNEL @ fit(t)) for t in (Y, KERNEL @ fit(Y)))
    held_out = torch.tensor(np.sin(2 * np.pi * X) + 0.3 * np.cos(9 * X))
    found = optimal_label_weight(held_out, by_labels, by_teacher)
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    losses = [(held_out - a * by_labels - (1 - a) * by_teacher).square().sum() for a in grid[::100]]
    assert 0 <= found <= 1
    assert found == pytest.approx(float(grid[::100][int(torch.stack(losses).argmin())]), abs=1.1e-3)


def test_a_share_of_the_labels_beyond_0_and_1_is_held_there():
    a, b = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    assert optimal_label_weight(torch.tensor([[3.0]]), a, b) == 1.0
    assert optimal_label_weight(torch.tensor([[-3.0]]), a, b) == 0.0
    assert optimal_label_weight(a, b, b) == 0.0


@pytest.mark.parametrize("mix", ["arithmetic", "geometric"])
@pytest.mark.parametrize("anchor", [0.1, 0.3, 0.7])
def test_an_exact_mixture_comes_nearer_to_the_anchor_by_its_share_in_each_generation(mix, anchor):
    generator = torch.Generator().manual_seed(0)
    first, q = (2 * torch.randn(50, 7, generator=generator) for _ in range(2))
    distances = []
    for _ in range(5):
        p = first.log_softmax(1)
        distances.append((p.exp() * (p - q.log_softmax(1))).sum(1))
        q = mixed_logits(first, q, anchor, mix)
    for before, after in itertools.pairwise(distances):
        assert bool((after <= (1 - anchor) * before + 1e-5).all())


def test_mixtures_are_means_of_probabilities_and_of_their_logarithms():
    a, b = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[3.0, 0.0, 0.0]])
    expected = 0.3 * a.softmax(1) + 0.7 * b.softmax(1)
    torch.testing.assert_close(mixed_logits(a, b, 0.3, "arithmetic").exp(), expected)
    torch.testing.assert_close(mixed_logits(a, b, 0.3, "geometric"), (0.3 * a + 0.7 * b).log_softmax(1))


class Classroom:
    """Trains lessons as the stage does, and remembers them."""

    def __init__(self, make_network, data, epochs=1):
        self.data, self.make, self.lessons, self.epochs = data, make_network, [], epochs

    def __call__(self, lesson):
        self.lessons.append(lesson)
        methods = [{"name": "kd", "temperature": 1.0}] if lesson.instead is None else list(lesson.instead)
        config = DistillConfig.model_validate(
            {"methods": [*methods, *lesson.methods], "training": StudentTrainingConfig(epochs=self.epochs)}
        )
        teacher = lesson.teacher or self.teacher()
        student = self.make(10 + len(self.lessons), task=self.data.task)
        return distill(student, teacher, self.data, config, seed=0, device=CPU)

    def teacher(self):
        return self.make(1, task=self.data.task)


@pytest.fixture
def classroom(make_network):
    return Classroom(make_network, splits(image_task(classes=3), train=48))


def run(classroom, **settings):
    driver = Generations(GenerationsConfig(**settings))
    return driver.run(classroom, classroom.teacher(), classroom.data)


def test_one_generation_is_a_run_without_a_driver(classroom):
    run(classroom, generations=1)
    assert classroom.lessons == [Lesson()]
    assert DRIVERS["once"](DRIVERS["once"].Config()).run(lambda lesson: lesson, None, None) == Lesson()


def test_each_generation_is_taught_by_the_one_before_and_tells_how_far_it_is_from_the_teacher(classroom):
    found = run(classroom, generations=3)
    names = [lesson.name for lesson in classroom.lessons]
    assert names == ["", "generation_2", "generation_3"]
    assert classroom.lessons[0].teacher is None
    assert classroom.lessons[2].teacher is not classroom.lessons[1].teacher
    told = found.measures
    assert told["generation_3.kl_ratio"] == pytest.approx(
        told["generation_3.kl_from_teacher"] / told["generation_2.kl_from_teacher"]
    )


def test_an_anchor_mixes_the_first_teacher_into_the_next(classroom):
    run(classroom, generations=2, anchor=0.4)
    taught_by = classroom.lessons[1].teacher
    assert isinstance(taught_by, MixedTeacher)
    inputs = classroom.data.train.batch(torch.arange(5)).inputs
    expected = 0.4 * taught_by.first(inputs).softmax(1) + 0.6 * taught_by.second(inputs).softmax(1)
    torch.testing.assert_close(taught_by(inputs).softmax(1), expected)
    assert taught_by.look(inputs).embedding.shape[1] == taught_by.get_classifier().in_features


def test_the_labels_share_is_given_or_estimated_from_two_more_lessons(classroom):
    run(classroom, generations=1, label_weight=0.25)
    assert classroom.lessons[0].methods == ({"name": "fixed_weights", "label_weight": 0.25, "distill_weight": 0.75},)
    classroom.lessons.clear()
    found = run(classroom, generations=1, label_weight="closed_form")
    assert [lesson.name for lesson in classroom.lessons] == ["labels", "generation_1_unlabelled", ""]
    assert 0 <= found.measures["generation_1.label_weight"] <= 1
