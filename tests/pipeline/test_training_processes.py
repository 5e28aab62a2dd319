"""A training in two processes has the numbers of one with the same batch, and goes on in any number of them."""

import copy
import io
import multiprocessing
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.pipeline.device import Compute
from edgestill.pipeline.errors import FailedError
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.training import processes
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.spaces import ResNetSpace

pytestmark = pytest.mark.engines
CPU, TWO = torch.device("cpu"), Compute(processes=2)


@pytest.fixture
def task(make_task):
    return make_task(channels=1, side=8, classes=3)


@pytest.fixture
def train(task, make_split):
    """A training of a network with batch norm in every layer, on batches that two processes cannot halve evenly."""

    def run(compute, objective=None, epochs=2, **options):
        space = ResNetSpace()
        network = space.build(space.parse("1-1-1/4-8-8"), task)
        initialise(network, "gaussian", 3)
        config = TrainingConfig(epochs=epochs, batch_size=17, learning_rate=0.05)
        parts = make_split(task, 70, seed=1), make_split(task, 45, seed=9)
        result = fit(network, objective or Supervised(), *parts, config, seed=0, device=CPU, compute=compute, **options)
        return network, result

    return run


class TwoLooks(Supervised):
    """Reads the features twice, and asks for the gradient of the inputs, as an adversary does."""

    def loss(self, network, batch):
        inputs = batch.inputs.detach().clone().requires_grad_()
        first = F.cross_entropy(network(inputs), batch.targets)
        slope = torch.autograd.grad(first, inputs, retain_graph=True)[0]
        second = F.cross_entropy(network(batch.inputs + 0.1 * slope.sign()), batch.targets)
        return {"first": first, "second": second}


def assert_close(one, other):
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("objective", [Supervised, TwoLooks])
def test_two_processes_give_the_numbers_of_one(train, objective):
    (one, alone), (two, shared) = train(Compute(), objective()), train(TWO, objective())
    assert_close(two, one)
    for ours, theirs in zip(shared.curve, alone.curve, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert not torch.distributed.is_initialized()


def test_a_training_goes_on_in_another_number_of_processes(train):
    saved = []
    whole, _ = train(TWO, epochs=3, save=lambda state: saved.append(state_bytes(state)))
    resume = torch.load(io.BytesIO(saved[1]), weights_only=True)
    assert_close(train(Compute(), epochs=3, resume=copy.deepcopy(resume))[0], whole)
    again, _ = train(TWO, epochs=3, resume=resume)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_process_that_dies_ends_the_training_in_one_sentence(train):
    def kill(record):
        for child in multiprocessing.active_children():
            if child.name == "edgestill-train":
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(
        FailedError, match=r"a process that trains ended \(exit code -9\); go on with `edgestill resume`"
    ):
        train(TWO, observe=kill)


def test_a_network_that_gives_its_view_in_one_pass_is_trained_by_one_process():
    network = nn.Linear(2, 2)
    network.look = None
    with processes.spreading(TWO, network, CPU) as spread:
        assert spread(network) is network
