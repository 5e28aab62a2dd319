"""What tests of distillation share: small networks with weights from a seed."""

import dataclasses

import pytest
import torch

from edgestill.distill.methods.base import Context
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise


@pytest.fixture
def make_network(make_task):
    def make(seed=0, widths=(4, 6, 8), task=None):
        task = task or make_task()
        network = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
        initialise(network, "kaiming", seed)
        return network

    return make


@pytest.fixture
def make_context():
    """What a recipe may look at; `changes` are fields of Context."""

    def make(recipe, splits, teacher, student, **changes):
        context = Context(
            task=splits.task,
            teacher=teacher,
            student=student,
            train=splits.train,
            reference=splits.reference,
            device=torch.device("cpu"),
            seed=0,
            deployable=lambda: recipe.deployable(student),
            teacher_view=recipe.look_at_teacher,
        )
        return dataclasses.replace(context, **changes)

    return make
