"""CIFAR-10 from 5,000 images: the published ResNet-56 (93.4 %) teaches a ResNet-8 of 8, 16 and 32 channels.

The teacher was trained on all 50,000 training images, the student's among them. 1,000 others choose and 1,000 weigh;
2,000 of the test images measure. DATA holds `cifar10/` (mosaics of 40 by 50 images, labels.npz) and `weights/`.
"""

from pathlib import Path

import numpy as np
import torch
from lib.bench import Bench
from PIL import Image
from torch import nn

from edgestill.distill.config import StudentTrainingConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TeacherConfig, load_teacher

_SIZES = {"train": 5_000, "validation": 1_000, "reference": 1_000}
_TESTED = 2_000
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as the published weights were trained


def make(seed: int, data: Path, cache: Path) -> Bench:
    labels = np.load(data / "cifar10" / "labels.npz")
    names = tuple(str(name) for name in labels["classes"])
    task = Task(labels=names, input_shape=(3, 32, 32), mean=_MEAN, std=_STD)
    order = np.random.default_rng(derive_seed(seed, "cifar_5k")).permutation(len(labels["train"]))
    images, split, start = _images(data / "cifar10", "train"), {}, 0
    for name, size in _SIZES.items():
        split[name] = _split(images, labels["train"], order[start : start + size], name)
        start += size
    tested = np.arange(len(labels["test"]))[:_TESTED]
    config = TeacherConfig(architecture="resnet56", weights=data / "weights" / "resnet56-4bfd9763.th")
    return Bench(
        splits=Splits(
            task, split["train"], split["reference"], split["validation"], AugmentConfig(), dict(_SIZES), digests={}
        ),
        teacher=load_teacher(config, task, data / "weights" / "resnet56-4bfd9763.th"),
        make_student=lambda student_seed: _student(task, student_seed),
        tests={"test": _split(_images(data / "cifar10", "test"), labels["test"], tested, "test")},
        training=StudentTrainingConfig(epochs=15, batch_size=64, patience=0),
    )


def _images(folder: Path, part: str) -> np.ndarray:
    """Images [N, 3, 32, 32] uint8 of a part's mosaics, in the order of the labels."""
    tiles = []
    for path in sorted(folder.glob(f"{part}_*.webp")):
        mosaic = np.asarray(Image.open(path).convert("RGB"))
        tiles.append(mosaic.reshape(40, 32, 50, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    return np.concatenate(tiles)


def _split(images: np.ndarray, labels: np.ndarray, index: np.ndarray, role: str) -> ImageSplit:
    return ImageSplit(torch.from_numpy(images[index]), torch.from_numpy(labels[index].astype(np.int64)), role)


def _student(task: Task, seed: int) -> nn.Module:
    network = CifarResNet((1, 1, 1), (8, 16, 32), num_classes=10, mean=task.mean, std=task.std)
    initialise(network, "kaiming", seed)
    return network
