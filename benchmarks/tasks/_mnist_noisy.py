"""MNIST with wrong labels: 6,000 training images, a fifth flipped to another class at random; all else is clean.

Reference and validation are 1,000 clean images each. The student is an MLP 784-64-64. What the teacher knows of the
flips decides where they can do harm (the `mnist_noisy_*` tasks).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lib.bench import Bench
from torch import Tensor, nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

_MEAN, _STD = (0.1307,), (0.3081,)  # of the training pixels
_TASK = Task(labels=tuple("0123456789"), input_shape=(1, 28, 28), mean=_MEAN, std=_STD)
SIZES = {"train": 6000, "reference": 1000, "validation": 1000, "more": 20_000}  # more: a good teacher's own images


class Mlp(PooledClassifier):
    def __init__(self, *widths: int) -> None:
        super().__init__(10, widths[-1], _MEAN, _STD)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip((784, *widths[:-1]), widths, strict=True))

    def trunk(self, inputs: Tensor) -> Tensor:
        hidden = inputs.flatten(1)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        return hidden[:, :, None, None]

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


class Cnn(PooledClassifier):
    def __init__(self) -> None:
        super().__init__(10, 64, _MEAN, _STD)
        stages = [nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 1, 1)]
        self.layers = nn.ModuleList(nn.Sequential(s, nn.BatchNorm2d(s.out_channels), nn.ReLU()) for s in stages)

    def trunk(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


@dataclass(frozen=True)
class Noisy:
    """The data of a seed, and what a method is not told."""

    splits: Splits
    more: ImageSplit
    test: ImageSplit
    right: Tensor  # [N] labels of the training images before the flips


def draw(seed: int, data: Path, flipped: float = 0.2) -> Noisy:
    """The splits of a seed; `flipped` is the share of training labels that are replaced by another class."""
    with np.load(data / "mnist.npz") as arrays:
        images, targets, unseen, answers = (arrays[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    generator = torch.Generator().manual_seed(derive_seed(seed, "mnist_noisy"))
    order = torch.randperm(len(targets), generator=generator)
    parts, start = {}, 0
    for name, size in SIZES.items():
        parts[name] = _split(images, targets, order[start : start + size].numpy(), name)
        start += size
    right = parts["train"].targets
    other = (right + torch.randint(1, 10, right.shape, generator=generator)) % 10
    chosen = torch.rand(right.shape, generator=generator) < flipped
    train = ImageSplit(parts["train"].images, torch.where(chosen, other, right), "train")
    splits = Splits(_TASK, train, parts["reference"], parts["validation"], AugmentConfig(), SIZES, {})
    return Noisy(splits, parts["more"], _split(unseen, answers, np.arange(len(answers)), "test"), right)


def bench_of(regime: str, seed: int, data: Path, cache: Path, flipped: float = 0.2) -> tuple[Bench, Noisy]:
    """A regime's bench: `memorised`, `noisy` or `good` says what its teacher made of the flips."""
    noisy = draw(seed, data, flipped)
    make, train, training = _TEACHERS[regime]
    teacher = _fresh(make, seed)
    path = cache / f"mnist_noisy_{regime}_{flipped:g}_{seed}.safetensors"
    if path.exists():
        load_weights(teacher, path)
    else:
        judged = noisy.splits.train if regime == "memorised" else noisy.splits.validation
        with torch.random.fork_rng(devices=[]):
            fit(teacher, Supervised(), train(noisy), judged, training, seed=seed, device=torch.device("cpu"))
        path.write_bytes(weights_bytes(teacher))
    return Bench(noisy.splits, teacher, make_student, {"test": noisy.test}, TRAINING), noisy


def make_student(seed: int) -> PooledClassifier:
    return _fresh(lambda: Mlp(64, 64), seed)


def _fresh(make: Callable[[], PooledClassifier], seed: int) -> PooledClassifier:
    """With PyTorch's own first weights, which suit an MLP better than Kaiming's by fan-out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


TRAINING = StudentTrainingConfig(epochs=30, batch_size=64, learning_rate=0.01, patience=0)
_TEACHERS: dict[str, tuple[Callable[[], PooledClassifier], Callable[[Noisy], ImageSplit], TrainingConfig]] = {
    "memorised": (
        lambda: Mlp(512, 512),
        lambda noisy: noisy.splits.train,
        TrainingConfig(epochs=40, learning_rate=0.05, weight_decay=0),
    ),
    "noisy": (
        Cnn,
        lambda noisy: noisy.splits.train,
        TrainingConfig(epochs=8, learning_rate=0.05, weight_decay=5e-3),
    ),
    "good": (Cnn, lambda noisy: noisy.more, TrainingConfig(epochs=6, learning_rate=0.1)),
}


def _split(images: np.ndarray, targets: np.ndarray, index: np.ndarray, role: str) -> ImageSplit:
    return ImageSplit(torch.from_numpy(images[index])[:, None], torch.from_numpy(targets[index]).long(), role)
