"""Differences paired by seed: closed forms, another library, and how often the interval holds the truth."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from edgestill.pipeline.training.difference import Difference, class_weights_of, paired_by_seed
from edgestill.pipeline.training.metrics import metrics_of, paired_difference


def test_a_single_seed_has_the_interval_of_its_examples_alone() -> None:
    first, second = np.zeros((1, 40), bool), np.zeros((1, 40), bool)
    first[0, :12], second[0, 5:15] = True, True  # right alone: 5 of the first, 3 of the second
    found = paired_by_seed(first, second)
    assert found.value == pytest.approx(2 / 40)
    assert found.interval == pytest.approx(paired_difference(lost=3, gained=5, n=40))


def test_seeds_and_examples_add_in_quadrature() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((4, 50)) < 0.8, rng.random((4, 50)) < 0.7
    found = paired_by_seed(first, second)
    by_seed = first.mean(1) - second.mean(1)
    student = scipy.stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    by_example = first.mean(0) - second.mean(0)
    pseudo = np.concatenate([by_example, [0.5**0.5, -(0.5**0.5)]])  # squares sum to 1, values to 0
    of_examples = 1.959964 * math.sqrt((pseudo**2).sum() - pseudo.sum() ** 2 / 52) / 52
    half = math.hypot((student.high - student.low) / 2, of_examples)
    centre = by_example.sum() / 52
    assert found.value == pytest.approx(by_seed.mean())
    assert found.interval == pytest.approx((centre - half, centre + half))


def test_seeds_that_all_answer_alike_add_nothing() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((1, 60)) < 0.8, rng.random((1, 60)) < 0.7
    once, thrice = (paired_by_seed(first.repeat(n, 0), second.repeat(n, 0)) for n in (1, 3))
    assert thrice.interval == pytest.approx(once.interval)


def test_with_weights_of_the_classes_it_compares_mean_recalls() -> None:
    targets = np.array([0] * 30 + [1] * 5 + [3] * 2)  # no example of class 2
    rng = np.random.default_rng(2)
    answers = [np.where(rng.random(37) < share, targets, 2) for share in (0.9, 0.5)]
    weights = class_weights_of(targets)
    assert weights.mean() == pytest.approx(1)
    recalls = [
        metrics_of([(torch.eye(4)[torch.from_numpy(a)], torch.from_numpy(targets))], balanced=True).balanced_accuracy
        for a in answers
    ]
    found = paired_by_seed(*((a == targets)[None] for a in answers), weights)
    assert found.value == pytest.approx(recalls[0] - recalls[1])


def test_comparisons_share_the_error_of_the_examples() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random((1, 80)) < 0.8, rng.random((1, 80)) < 0.7
    alone, of_four = (paired_by_seed(first, second, comparisons=count).interval for count in (1, 4))
    wider = scipy.stats.norm.ppf(1 - 0.05 / 4 / 2) / scipy.stats.norm.ppf(0.975)
    assert of_four[1] - of_four[0] == pytest.approx(wider * (alone[1] - alone[0]), rel=1e-6)


def test_the_sign_is_that_of_the_whole_interval() -> None:
    ends = {(0.01, 0.02): 1, (-0.01, 0.02): 0, (0.0, 0.02): 0, (-0.02, -0.01): -1}
    for interval, sign in ends.items():
        found = Difference(value=sum(interval) / 2, interval=interval, seeds=3)
        assert (found.sign, found.reversed.sign) == (sign, -sign)


@pytest.mark.parametrize(
    ("seeds", "training", "examples", "at_most"),
    [(1, 0.0, 400, 0.97), (3, 0.0, 400, 0.985), (3, 1.5, 400, 0.99), (3, 1.0, 20_000, 0.97), (5, 1.0, 200, 0.99)],
)
def test_the_interval_holds_the_true_difference_in_about_95_of_100_comparisons(seeds, training, examples, at_most):
    """Both ways are equally good. Examples differ in difficulty, trainings in luck, `training` in logits."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        ease = rng.normal(1.5, 2, examples)
        luck = rng.normal(0, 0.2 * training, (2, seeds, 1))
        own = rng.normal(0, training, (2, seeds, examples)) if training else rng.normal(0, 1, (2, 1, examples))
        right = ease + luck + own > 0
        held += paired_by_seed(*np.broadcast_to(right, (2, seeds, examples))).sign == 0
    assert 0.935 <= held / 1000 <= at_most
