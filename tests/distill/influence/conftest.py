"""Logistic regression in double precision: the one network whose influence is known exactly."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.methods.kd_aif.influence import Question
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.networks.network import PooledClassifier

WIDTH, CLASSES, L2 = 6, 3, 1e-2


class Logistic(PooledClassifier):
    """No trunk: the embedding is the input."""

    def __init__(self, width=WIDTH, classes=CLASSES):
        super().__init__(classes, width, (0.0,), (1.0,))

    def trunk(self, inputs):
        return inputs.flatten(1)[:, :, None, None]

    def blocks(self):
        return []


def draw(count, generator, centres, flipped=0.0):
    """Gaussian classes as images of one row, and which labels are wrong."""
    right = torch.randint(0, CLASSES, (count,), generator=generator)
    inputs = centres[right] + torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    wrong = torch.rand(count, generator=generator) < flipped
    targets = torch.where(wrong, (right + 1) % CLASSES, right)
    return ImageSplit(inputs[:, None, None, :], targets), wrong


def fit_exactly(network, split, weight=None):
    """Newton's method to the minimum of sum_i w_i CE_i / n + L2 / 2 |theta|^2, all weights and the bias."""
    inputs = F.pad(split.images.flatten(1), (0, 1), value=1.0)
    onehot = F.one_hot(split.targets, CLASSES).double()
    weight = torch.ones(len(split), dtype=torch.float64) if weight is None else weight.double()
    theta = torch.zeros(CLASSES, WIDTH + 1, dtype=torch.float64)
    for _ in range(50):
        p = F.softmax(inputs @ theta.T, dim=1)
        gradient = ((p - onehot) * weight[:, None]).T @ inputs / len(split) + L2 * theta
        blocks = torch.einsum("nk,kl->nkl", p, torch.eye(CLASSES, dtype=p.dtype)) - p[:, :, None] * p[:, None]
        hessian = torch.einsum("n,nkl,nd,ne->kdle", weight, blocks, inputs, inputs).reshape(theta.numel(), -1)
        system = hessian / len(split) + L2 * torch.eye(theta.numel(), dtype=p.dtype)
        step = torch.linalg.solve(system, gradient.flatten())
        theta = theta - step.view_as(theta)
        if step.norm() < 1e-12:
            break
    with torch.no_grad():
        network.linear.weight.copy_(theta[:, :-1])
        network.linear.bias.copy_(theta[:, -1])
    return network


@pytest.fixture
def logistic():
    """(seed=0, flipped=0, train=200, reference=100, spread=0.5) to a fitted network with its splits and a question."""

    def make(seed=0, flipped=0.0, train=200, reference=100, spread=0.5, **asked):
        generator = torch.Generator().manual_seed(seed)
        centres = spread * torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
        train, wrong = draw(train, generator, centres, flipped)
        reference = dataclasses.replace(draw(reference, generator, centres)[0], role="reference")
        held_out, _ = draw(2000, generator, centres)
        network = fit_exactly(Logistic().double().eval(), train)
        p = F.softmax(network(train.images).detach(), dim=1)
        trace = float(((p - p**2).sum(1) * (train.images.flatten(1).square().sum(1) + 1)).mean())
        settings = {
            "network": network,
            "deployable": network,
            "train": train,
            "answers": F.one_hot(train.targets, CLASSES).double(),
            "reference": reference,
            "reference_loss": "ce",
            "damping": L2 * CLASSES * (WIDTH + 1) / trace,  # so that it is L2
            "temperature": 1.0,
            "seed": 0,
            "device": torch.device("cpu"),
        }
        return SimpleNamespace(
            network=network,
            train=train,
            reference=reference,
            held_out=held_out,
            wrong=wrong,
            ask=lambda **other: Question(**(settings | asked | other)),
        )

    return make
