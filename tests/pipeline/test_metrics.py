"""Metrics against scikit-learn."""

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.training.metrics import (
    Metrics,
    evaluate,
    metrics_of,
    packed,
    right_alone,
    right_answers,
    tells_apart,
)


def test_metrics_equal_scikit_learns_over_batches_of_unequal_size():
    logits, targets = torch.randn(100, 4) * 3, torch.randint(4, (100,))
    found = metrics_of([(logits[:64], targets[:64]), (logits[64:], targets[64:])])
    assert found.n == 100
    assert found.accuracy == pytest.approx(accuracy_score(targets, logits.argmax(1)))
    probabilities = logits.double().softmax(1).numpy()
    assert found.cross_entropy == pytest.approx(log_loss(targets, probabilities, labels=range(4)), rel=1e-6)


def test_half_precision_logits_are_summed_in_single():
    logits, targets = (torch.randn(5000, 3) * 4).half(), torch.randint(3, (5000,))
    found = metrics_of([(logits, targets)])
    assert found.cross_entropy == pytest.approx(
        log_loss(targets, logits.double().softmax(1), labels=range(3)), rel=1e-5
    )


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_evaluation_mode_and_puts_the_mode_back(training):
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3)).train(training)
    split = ImageSplit(torch.rand(20, 1, 4, 4), torch.randint(3, (20,)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = evaluate(network, split, torch.device("cpu"), batch_size=7)
    assert network.training is training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    by_hand = network[3](((split.images - 0) / (1 + 1e-5) ** 0.5).flatten(1))  # fresh batch norm, no dropout
    assert found.accuracy == accuracy_score(split.targets, by_hand.argmax(1))


def test_the_mode_is_put_back_after_an_error_too():
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        evaluate(network, ImageSplit(torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.long)), torch.device("cpu"))
    assert network.training


def test_right_answers_are_those_that_accuracy_counts_whatever_the_batch():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3)).train()
    split = ImageSplit(torch.rand(20, 1, 4, 4), torch.randint(3, (20,)))
    right = right_answers(network, split, torch.device("cpu"), batch_size=7)
    assert right.tolist() == (network[2](split.images.flatten(1)).argmax(1) == split.targets).tolist()
    assert right.mean() == pytest.approx(evaluate(network, split, torch.device("cpu")).accuracy)
    assert network.training


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_packed_answers_are_compared_example_by_example(n):
    one, other = np.random.default_rng(n).random((2, n)) < 0.7
    assert right_alone(packed(one), packed(other)) == ((one & ~other).sum(), (other & ~one).sum())
    assert right_alone(packed(one), packed(one)) == (0, 0)


@pytest.mark.parametrize("comparisons", [1, 7])
def test_accuracies_are_told_apart_where_scipys_exact_test_does(comparisons):
    for apart in range(1, 40):
        for lost in range(apart + 1):
            p = scipy.stats.binomtest(lost, apart, 0.5).pvalue
            assert tells_apart(lost, apart - lost, comparisons) == (p * comparisons <= 0.05)
    assert not tells_apart(0, 0)
    assert tells_apart(50_000, 50_900) == (scipy.stats.binomtest(50_000, 100_900, 0.5).pvalue <= 0.05)


@pytest.mark.parametrize(("accuracy", "n"), [(-1e18, 450), (1.5, 450), (float("nan"), 450), (0.5, 0), (0.5, -3)])
def test_metrics_that_nothing_can_have_are_no_metrics(accuracy, n):
    with pytest.raises(ValidationError):
        Metrics(accuracy=accuracy, cross_entropy=0.1, n=n)
