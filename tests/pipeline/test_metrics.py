"""Metrics against scikit-learn."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from pipeline.data import ImageSplit
from pipeline.metrics import evaluate, metrics_of


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
