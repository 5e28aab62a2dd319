"""LELP where classes hide subclasses: 2 classes of 8 Gaussians each, over 5 seeds."""

import numpy as np
import torch
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.methods.lelp.method import LELPConfig
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")


class Mlp(nn.Module):
    """The least that a classifier is: features [N, D] are its embedding."""

    def __init__(self, width, seed):
        super().__init__()
        self.num_classes = 2
        self.hidden = nn.Linear(16, width)
        self.linear = nn.Linear(width, 2)
        initialise(self, "kaiming", seed)

    def forward_features(self, inputs):
        return self.hidden(inputs.flatten(1)).relu()

    def forward_head(self, features, pre_logits=False):
        return features if pre_logits else self.linear(features)

    def get_classifier(self):
        return self.linear

    def forward(self, inputs):
        return self.linear(self.forward_features(inputs))


def hidden_gaussians(seed, count):
    generator = torch.Generator().manual_seed(seed)
    centres = 2.2 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1000 + seed % 100))
    which = torch.randint(16, (count,), generator=generator)
    points = centres[which] + torch.randn(count, 16, generator=generator)
    return ImageSplit(points.reshape(-1, 1, 4, 4), which % 2)


def test_where_classes_hide_subclasses_the_student_learns_more_than_from_plain_kd():
    task = Task(labels=("a", "b"), input_shape=(1, 4, 4), mean=(0.0,), std=(1.0,))
    gains = []
    for seed in range(5):
        large, train, validation, test = (
            hidden_gaussians(seed + 100 * part, count) for part, count in enumerate((3000, 400, 400, 3000), start=1)
        )
        teacher = Mlp(96, seed)
        fit(teacher, Supervised(), large, validation, TrainingConfig(epochs=5), seed=seed, device=CPU)
        splits = Splits(task, train, train, validation, AugmentConfig(), {}, {})
        training = StudentTrainingConfig(epochs=15, batch_size=32, patience=0)
        accuracy = []
        for method in (KDConfig(distill_weight=1.0), LELPConfig()):
            config = DistillConfig(methods=(method,), training=training)
            student = distill(Mlp(16, seed + 50), teacher, splits, config, seed=seed, device=CPU).student
            accuracy.append(evaluate(student, test, CPU).accuracy)
        gains.append(accuracy[1] - accuracy[0])
    assert np.mean(gains) > 0
