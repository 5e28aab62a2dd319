"""Fine-tuning of published weights with a new head as this project draws it, and as timm makes the network.

    python benchmarks/new_head.py cifar10.npz WEIGHTS [--seeds 5] [--images 850] [--side 96] [--epochs 5]

WEIGHTS is a folder of published weights; `benchmarks/lib/efficientnet_lite0.py` writes one. Images of CIFAR-10 are
drawn by seed and made larger. Both networks see the same images in the same order, flipped at random, for the same
epochs of AdamW, the best of which 200 further images choose. Accuracies are of other images. The difference is paired
by seed; its interval is Student's t over seeds, 95 %.
"""

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lib.bench import paired_difference
from torch import nn

from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.library import require
from edgestill.pipeline.teachers.timm import TimmConfig
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")
_CHOOSING = 200  # images that choose the epoch


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    found: dict[str, list[float]] = {"ours": [], "timm's": []}
    with np.load(given.images_file) as whole:
        for seed in range(given.seeds):
            for name, accuracy in _accuracies(_splits(whole, seed, given), seed, given).items():
                found[name].append(100 * accuracy)
            print(f"seed {seed}: " + ", ".join(f"{name} {rows[-1]:.1f} %" for name, rows in found.items()), flush=True)
    mean, half = paired_difference(found["ours"], found["timm's"])
    means = ", ".join(f"{name} {statistics.fmean(rows):.1f} %" for name, rows in found.items())
    print(f"{describe_machine()['cpu']}, {given.threads} threads: {means}; ours {mean:+.1f} points ± {half:.1f}")


def _accuracies(parts: list[ImageSplit], seed: int, given: argparse.Namespace) -> dict[str, float]:
    task = Task(
        labels=tuple(map(str, range(10))), input_shape=(3, given.side, given.side), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    weights = given.weights / f"{given.model}.safetensors"
    config = TimmConfig(model=given.model, weights=weights, finetune=True, size="data")
    with drawn_from(seed):
        ours: Any = make_teacher(config).build(task)
        theirs = copy.deepcopy(ours)
        drawn: Any = require("timm").create_model(given.model, num_classes=len(task.labels)).get_classifier()
        theirs.model.get_classifier().load_state_dict(drawn.state_dict())
    return {name: _accuracy(one, parts, given.epochs, seed) for name, one in (("ours", ours), ("timm's", theirs))}


def _accuracy(network: nn.Module, parts: list[ImageSplit], epochs: int, seed: int) -> float:
    train, validation, test = parts
    training = TrainingConfig(epochs=epochs, batch_size=64, optimizer="adamw", learning_rate=0.001)
    flips = Augmentation(AugmentConfig(flip=True))
    fit(network, Supervised(), train, validation, training, seed=seed, device=CPU, augmentation=flips)
    return evaluate(network, test, CPU).accuracy


def _splits(whole: Any, seed: int, given: argparse.Namespace) -> list[ImageSplit]:
    """Draw training, validation and test images."""
    rng = np.random.default_rng(seed)
    made = []
    for part, counts in (("train", (given.images, _CHOOSING)), ("test", (given.tested,))):
        drawn = rng.permutation(len(whole[f"x_{part}"]))
        for chosen in np.split(drawn, np.cumsum(counts))[:-1]:
            pixels = torch.from_numpy(whole[f"x_{part}"][chosen]).permute(0, 3, 1, 2).float()
            larger = F.interpolate(pixels, (given.side, given.side), mode="bicubic", antialias=True)
            targets = torch.from_numpy(whole[f"y_{part}"].ravel()[chosen].astype(np.int64))
            made.append(ImageSplit(larger.round().clamp(0, 255).to(torch.uint8), targets))
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_file", type=Path, help=".npz of CIFAR-10, as Keras' has it")
    parser.add_argument("weights", type=Path, help="folder of published weights, MODEL.safetensors each")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="of timm, with weights in the folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=850, help="training images")
    parser.add_argument("--tested", type=int, default=500, help="other images")
    parser.add_argument("--side", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
