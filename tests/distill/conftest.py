"""What tests of distillation share: small networks with weights from a seed."""

import pytest

from pipeline.blocks import CifarResNet
from pipeline.network import initialise


@pytest.fixture
def make_network(make_task):
    def make(seed=0, widths=(4, 6, 8), task=None):
        task = task or make_task()
        network = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
        initialise(network, "kaiming", seed)
        return network

    return make
