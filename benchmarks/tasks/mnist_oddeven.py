"""Digits that a small student is to learn from 1,000 images: odd and even, which hide ten classes.

The teacher, a CNN of 64 features, sees 50,000 labelled odd and even; the student has some 6.7k parameters. Other
images of MNIST's training part choose (2,000) and weigh (1,000); its test part measures.
"""

import itertools
from pathlib import Path

import torch
from lib.bench import Bench, Make
from torch import Tensor, nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.datasets.npz import load_npz
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import PooledClassifier, initialise
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes, write_atomic
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

_TEACHER, _STUDENT = (16, 32, 64), (8, 16, 36)  # channels of each convolution
_SIZES = {"teacher": 50_000, "validation": 2_000, "reference": 1_000}
_TRAIN = 1_000  # of the teacher's images


class Cnn(PooledClassifier):
    """3x3 convolutions with batch norm at stride 2, and the mean over positions."""

    def __init__(self, widths: tuple[int, ...], task: Task) -> None:
        super().__init__(task.num_classes, widths[-1], task.mean, task.std)
        channels = (task.input_shape[0], *widths)
        layers = [
            nn.Sequential(nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            for into, out in itertools.pairwise(channels)
        ]
        self.layers = nn.Sequential(*layers)

    def trunk(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(inputs)
        return features

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)[1:]


def _two_classes(seed: int, data: Path, cache: Path) -> Bench:
    return make_few(seed, data, cache, "mnist_oddeven", ("even", "odd"))


def make_few(seed: int, data: Path, cache: Path, name: str, labels: tuple[str, ...], labelled: int = _TRAIN) -> Bench:
    """1,000 digits for the student, `labelled` of them with their label: the digit, modulo the number of labels."""
    raw = load_npz(NpzConfig(path=data / "mnist.npz"))
    images, parity = torch.from_numpy(raw.train.images), torch.from_numpy(raw.train.targets) % len(labels)
    order = torch.randperm(len(parity), generator=torch.Generator().manual_seed(derive_seed(seed, "mnist_oddeven")))
    parts = dict(zip(_SIZES, order.split([*_SIZES.values(), len(order) - sum(_SIZES.values())]), strict=False))
    split = {name: ImageSplit(images[index], parity[index], name) for name, index in parts.items()}
    task = Task(labels=labels, input_shape=tuple(images.shape[1:]), mean=(0.1307,), std=(0.3081,))
    targets = split["teacher"].targets[:_TRAIN].clone()
    targets[labelled:] = UNLABELLED
    few = ImageSplit(split["teacher"].images[:_TRAIN], targets, "train")
    sizes = {"train": labelled, "validation": _SIZES["validation"], "reference": _SIZES["reference"]}
    return Bench(
        splits=Splits(task, few, split["reference"], split["validation"], AugmentConfig(), sizes, digests={}),
        teacher=_teacher(task, split["teacher"], split["validation"], cache / f"{name}_{seed}.safetensors", seed),
        make_student=lambda student_seed: _drawn(Cnn(_STUDENT, task), student_seed),
        tests={
            "centred": ImageSplit(
                torch.from_numpy(raw.test.images), torch.from_numpy(raw.test.targets) % len(labels), "test"
            )
        },
        training=StudentTrainingConfig(epochs=60, patience=0),
    )


def _teacher(task: Task, train: ImageSplit, validation: ImageSplit, path: Path, seed: int) -> nn.Module:
    teacher = _drawn(Cnn(_TEACHER, task), derive_seed(seed, "teacher"))
    if not path.exists():
        config = TrainingConfig(epochs=8, batch_size=128)
        fit(teacher, Supervised(), train, validation, config, seed=seed, device=torch.device("cpu"))
        write_atomic(path, weights_bytes(teacher))
    load_weights(teacher, path)
    return teacher


def _drawn(network: nn.Module, seed: int) -> nn.Module:
    initialise(network, "kaiming", seed)
    return network


VARIANTS: dict[str, Make] = {"": _two_classes}
