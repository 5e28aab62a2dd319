"""The generators that a process shares: seeded within, and as they were behind."""

import random

import numpy as np
import pytest
import torch

from edgestill.pipeline.networks.network import uninitialised
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised


def draw():
    """From torch, numpy and Python, a pending normal number of each included."""
    numpy = float(np.random.rand()), float(np.random.normal())  # noqa: NPY002
    return float(torch.rand(())), float(torch.randn(())), *numpy, random.random(), random.gauss(0, 1)


@pytest.fixture(params=[1, 2])
def state(request):
    """Somewhere in each generator's stream."""
    with drawn_from(request.param):
        yield draw()


@pytest.mark.parametrize("context", [drawn_from, uninitialised])
def test_what_is_drawn_depends_on_the_seed_alone(state, context):
    with context(7):
        first = draw()
    draw()
    with context(7):
        assert draw() == first
    with context(8):
        assert not set(first) & set(draw())


@pytest.mark.parametrize("context", [drawn_from, uninitialised])
def test_the_streams_outside_go_on_as_if_nothing_had_been_drawn(context):
    with drawn_from(3):
        expected = draw(), draw()
    with drawn_from(3):
        first = draw()
        with context(7), context(2**63 - 1):
            draw()
        with pytest.raises(ZeroDivisionError), context(7):
            draw()[0] / 0
        assert (first, draw()) == expected


class Drawing(torch.nn.Module):
    """Draws at every step of training, and when it is evaluated."""

    def __init__(self, network):
        super().__init__()
        self.network, self.drawn = network, []

    def forward(self, inputs):
        self.drawn.append(draw())
        return self.network(torch.nn.functional.dropout(inputs, 0.5, self.training))


def test_a_training_draws_from_its_seed_and_leaves_the_generators_alone(make_task, make_split, state):
    task, after = make_task(), []
    train, validation = make_split(task, 24, 1), make_split(task, 12, 2)
    runs = []
    for _ in range(2):
        with drawn_from(5):
            network = Drawing(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
        with drawn_from(len(after)):
            config = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.01)
            fit(network, Supervised(), train, validation, config, seed=0, device=torch.device("cpu"))
            after.append(draw())
        runs.append((network.drawn, [weight.tolist() for weight in network.parameters()]))
    assert runs[0] == runs[1]
    for number, drawn in enumerate(after):
        with drawn_from(number):
            assert draw() == drawn
