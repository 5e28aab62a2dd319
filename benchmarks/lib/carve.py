"""Disjoint images for benchmarks: to train on, to choose on, and to measure on, drawn by seed from one data set.

A run's test split is its report's alone (`flows/stages/report.py`), so a benchmark that reports accuracies holds images
out for itself.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F

from edgestill.pipeline.data.datasets import DigitsConfig, NpzConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.loading import load_whole_train
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task


def carve(
    path: Path | None, *, train: int, validation: int, measured: int, seed: int, pool: int = 1, pad: int = 0
) -> tuple[Splits, ImageSplit]:
    """Splits without a test part, whose `reference` is `train`, and the images held out for measuring.

    Args:
        path: an .npz whose training images are taken; None takes scikit-learn's digits.
        pool: side of the squares of pixels that are averaged into one.
        pad: of the random crop that augments training.
    """
    whole_task, whole = load_whole_train(NpzConfig(path=path) if path else DigitsConfig())
    wanted = train + validation + measured
    if wanted > len(whole):
        raise SystemExit(f"{wanted} images are asked for, and there are {len(whole)}; ask for fewer")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(derive_seed(seed, "carve")))[:wanted]
    images = F.avg_pool2d(whole.batch(order).inputs, pool)
    targets = whole.targets[order]
    ends = (0, train, train + validation, wanted)
    parts = [ImageSplit(images[a:b], targets[a:b]) for a, b in itertools.pairwise(ends)]
    std, mean = torch.std_mean(parts[0].images, (0, 2, 3))
    task = Task(
        labels=whole_task.labels,
        input_shape=tuple(images.shape[1:]),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )
    splits = Splits(
        task,
        train=parts[0],
        reference=parts[0],
        validation=parts[1],
        augment=AugmentConfig(pad=pad),
        sizes={"train": train, "validation": validation, "measured": measured},
        digests={},
    )
    return splits, parts[2]
