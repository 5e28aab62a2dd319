"""MNIST for the tasks of this folder: centred digits for the student, a teacher that met them transformed."""

# N digits; images are [N, 1, 28, 28] uint8

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lib.bench import Bench
from torch import Tensor, nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.distill.methods.hard.affine import AXES, warp
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import Batch, ImageSplit, Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import PooledClassifier, initialise
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes, write_atomic
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

Transform = Callable[[Tensor, torch.Generator], Tensor]  # float images in [0, 1]; drawn for each

MEAN, STD = (0.1307,), (0.3081,)
SIZES = {"train": 8_000, "reference": 1_000, "validation": 2_000, "teacher": 40_000}


class ConvNet(PooledClassifier):
    """Three 3x3 convolutions with batch norm, pooled by 2 between them, and the mean over what is left."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(10, widths[-1], MEAN, STD)
        layers: list[nn.Module] = []
        for before, width in zip((1, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (len(layers) < 3 * len(widths))
        self.layers = nn.Sequential(*layers)

    def trunk(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layers(inputs)
        return features

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


class Perceptron(PooledClassifier):
    """784-256-128-10: without any idea of space."""

    def __init__(self) -> None:
        super().__init__(10, 128, MEAN, STD)
        self.first, self.second = nn.Linear(784, 256), nn.Linear(256, 128)

    def trunk(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs.flatten(1)).relu()
        features: Tensor = self.second(hidden).relu()
        return features[:, :, None, None]

    def blocks(self) -> list[nn.Module]:
        return [self.first, self.second]


STUDENTS: dict[str, Callable[[], PooledClassifier]] = {"mlp": Perceptron, "cnn": lambda: ConvNet((8, 16, 32))}


class _Transformed(Supervised):
    """Supervised training on images transformed anew at every step."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch._replace(inputs=self._transform(batch.inputs, generator))


def make_bench(name: str, transform: Transform, student: str, seed: int, data: Path, cache: Path) -> Bench:
    """The student's digits and `centred` are as they come; the test set called `name` is transformed."""
    stored = np.load(data / "mnist.npz")
    task = Task(labels=tuple("0123456789"), input_shape=(1, 28, 28), mean=MEAN, std=STD)
    order = np.random.default_rng(derive_seed(seed, "mnist")).permutation(len(stored["y_train"]))
    parts, start = {}, 0
    for split, size in SIZES.items():
        parts[split] = _split(stored["x_train"], stored["y_train"], order[start : start + size], split)
        start += size
    centred = _split(stored["x_test"], stored["y_test"], np.arange(len(stored["y_test"])), "test")
    splits = Splits(
        task, parts["train"], parts["reference"], parts["validation"], augment=AugmentConfig(), sizes={}, digests={}
    )

    def fresh(student_seed: int) -> nn.Module:
        network = STUDENTS[student]()
        initialise(network, "kaiming", student_seed)
        return network

    return Bench(
        splits=splits,
        teacher=_teacher(parts["teacher"], parts["validation"], transform, seed, cache / f"{name}-{seed}.safetensors"),
        make_student=fresh,
        tests={"centred": centred, name: transformed(centred, transform, seed)},
        training=StudentTrainingConfig(  # 12 epochs of 125 steps
            epochs=12, batch_size=64, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-4, patience=0
        ),
    )


def moved(images: Tensor, **amounts: Tensor) -> Tensor:
    """Each image by its own amount along the named axes; what comes in is black."""
    columns = [amounts.get(axis, torch.zeros(len(images))) for axis in AXES]
    return warp(images, torch.stack(columns, dim=1), "zeros")


def transformed(split: ImageSplit, transform: Transform, seed: int) -> ImageSplit:
    """The same digits, each moved once."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "transformed"))
    images = transform(split.images.float().div(255), generator)
    return ImageSplit(images.mul(255).round().to(torch.uint8), split.targets, split.role)


def _teacher(train: ImageSplit, validation: ImageSplit, transform: Transform, seed: int, file: Path) -> nn.Module:
    network = ConvNet((16, 32, 64))
    initialise(network, "kaiming", derive_seed(seed, "teacher") % 2**32)
    if file.exists():
        load_weights(network, file)
        return network
    config = TrainingConfig(epochs=6, batch_size=64, learning_rate=0.05, warmup_epochs=0.5)
    fit(
        network,
        _Transformed(transform),
        train,
        transformed(validation, transform, seed),
        config,
        seed=derive_seed(seed, "teacher"),
        device=torch.device("cpu"),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, weights_bytes(network))
    return network


def _split(images: np.ndarray, targets: np.ndarray, index: np.ndarray, role: str) -> ImageSplit:
    return ImageSplit(torch.from_numpy(images[index])[:, None], torch.from_numpy(targets[index]).long(), role)
