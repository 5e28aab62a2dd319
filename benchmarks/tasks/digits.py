"""scikit-learn's digits as they are: a teacher and a student of the built-in ResNets, 8 x 8 pixels. Needs no folder."""

from pathlib import Path

import torch
from lib.bench import Bench

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised


def make(seed: int, data: Path, cache: Path) -> Bench:
    splits = load_splits(DigitsConfig(), seed)
    task = splits.task

    def network(widths: tuple[int, int, int], own: int) -> CifarResNet:
        made = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
        initialise(made, "kaiming", own)
        return made

    teacher, path = network((16, 32, 64), seed), cache / f"digits_teacher_{seed}.safetensors"
    if path.exists():
        load_weights(teacher, path)
    else:
        training = TrainingConfig(epochs=20, learning_rate=0.05)
        fit(teacher, Supervised(), splits.train, splits.validation, training, seed=seed, device=torch.device("cpu"))
        path.write_bytes(weights_bytes(teacher))
    return Bench(
        splits=splits,
        teacher=teacher,
        make_student=lambda own: network((4, 6, 8), own),
        tests={"test": load_test(DigitsConfig(), seed)},
        training=StudentTrainingConfig(epochs=20, batch_size=32, patience=0),
    )
