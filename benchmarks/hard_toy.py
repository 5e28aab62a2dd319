"""HARD beside plain KD on a toy in one dimension, paired by seed: does it find what the teacher does not mind?

    python benchmarks/hard_toy.py [--first-seed 300] [--seeds 10]

Six smooth patterns on a circle of 32 places, all shown at the same place. The teacher, a circular convolution and a
mean, does not mind where they lie; the student, one hidden layer of 64, has no idea of space. The augmentor may shift
and add noise. Agreement is how often student and teacher give the same class, KL that of their answers at T = 1.
"""

import argparse
import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lib.bench import shown_command, shown_difference, spread
from torch import Tensor, nn

from edgestill.distill import methods
from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods.base import Context
from edgestill.distill.methods.hard.augmentor import Augmentor
from edgestill.distill.methods.hard.method import Hard, disagreement
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import PooledClassifier, initialise
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

# N examples; images are [N, 1, 1, LENGTH]
LENGTH, PATTERNS = 32, 6
_CPU = torch.device("cpu")
TASK = Task(labels=tuple(f"pattern {k}" for k in range(PATTERNS)), input_shape=(1, 1, LENGTH), mean=(0.0,), std=(1.0,))
TRAINING = StudentTrainingConfig(  # 1,000 steps
    epochs=100, batch_size=64, optimizer="adamw", learning_rate=0.005, weight_decay=0, patience=0
)


class OneConvolution(PooledClassifier):
    """Circular convolution, ReLU, mean: exactly invariant to circular shifts."""

    def __init__(self) -> None:
        super().__init__(PATTERNS, 32, (0.0,), (1.0,))
        self.conv = nn.Conv1d(1, 32, 9, padding=4, padding_mode="circular")

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.conv(inputs.squeeze(2))).unsqueeze(2)

    def blocks(self) -> list[nn.Module]:
        return [self.conv]


class OneHiddenLayer(PooledClassifier):
    def __init__(self) -> None:
        super().__init__(PATTERNS, 64, (0.0,), (1.0,))
        self.hidden = nn.Linear(LENGTH, 64)

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.hidden(inputs.flatten(1)))[:, :, None, None]

    def blocks(self) -> list[nn.Module]:
        return [self.hidden]


class ShiftAndNoise(Augmentor):
    """phi: the logarithms of the standard deviations of a circular shift, in places, and of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor([0.5, 0.05]).log())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 1 + LENGTH, generator=generator)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        shift_std, noise_std = self.log_std.exp()
        shift = shift_std * noise[:, :1]
        part = (shift - shift.detach().floor())[:, None, None, :]
        here = torch.arange(LENGTH) - shift.detach().floor().long()
        near, next_to = (images.gather(3, ((here - back) % LENGTH)[:, None, None, :]) for back in (0, 1))
        moved: Tensor = (1 - part) * near + part * next_to + noise_std * noise[:, None, None, 1:]
        return moved

    @torch.no_grad()
    def project(self) -> None:
        self.log_std.clamp_(math.log(1e-3), math.log(LENGTH / 2))

    def measures(self) -> dict[str, float]:
        return dict(zip(("shift_std", "noise_std"), self.log_std.exp().tolist(), strict=True))


class ToyHard(Hard):
    """The real method with the toy's augmentor."""

    def make_augmentor(self, context: Context) -> Augmentor:
        return ShiftAndNoise()


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    methods.METHODS["hard"] = ToyHard
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = [_of_seed(seed) for seed in seeds]
    found = [row["found"] for row in rows]
    print(f"    {shown_command()}\n")
    print(
        f"{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}, n = "
        f"{len(seeds)}; {TRAINING.epochs} epochs. Mean and standard deviation; the difference with Student's 95 % "
        f"interval, paired by seed. HARD's augmentor ended at a shift of {min(f['shift_std'] for f in found):.1f} "
        f"to {max(f['shift_std'] for f in found):.1f} places.\n"
    )
    print("| measure | plain KD | HARD | difference | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in ("agreement, shifted", "agreement, centred", "KL, shifted", "KL, centred"):
        plain, hard = ([row[method][name] for row in rows] for method in ("kd", "hard"))
        each = [h - p for h, p in zip(hard, plain, strict=True)]
        cells = [f"{statistics.fmean(v):.3f} ± {spread(v):.3f}" for v in (plain, hard)]
        cells += [shown_difference(hard, plain, 3), f"{min(each):+.3f}", f"{max(each):+.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def _of_seed(seed: int) -> dict[str, Mapping[str, float]]:
    """What plain KD and HARD come to with the same patterns, teacher and first weights, and what HARD found."""
    parts = ("train", 600), ("reference", 60), ("validation", 300), ("test", 600)
    train, reference, validation, test = (_split(count, seed, role) for role, count in parts)
    moved = _split(600, seed, "test", shifted=True)
    splits = Splits(TASK, train, reference, validation, augment=AugmentConfig(), sizes={}, digests={})
    teacher = OneConvolution()
    initialise(teacher, "kaiming", seed)
    config = TrainingConfig(epochs=12, batch_size=64, optimizer="adamw", learning_rate=0.01)
    fit(teacher, Supervised(), train, validation, config, seed=seed, device=_CPU)
    frozen(teacher)
    row: dict[str, Mapping[str, float]] = {}
    for name, more in (("kd", []), ("hard", [{"name": "hard"}])):
        student = OneHiddenLayer()
        initialise(student, "kaiming", seed + 1)
        recipe: list[dict[str, Any]] = [{"name": "kd", "temperature": 1.0, "distill_weight": 1.0}, *more]
        told = DistillConfig.model_validate({"methods": recipe, "training": TRAINING.model_dump()})
        done = distill(student, teacher, splits, told, seed=seed, device=_CPU)
        row[name] = _judged(done.student, teacher, {"shifted": moved, "centred": test})
        row["found"] = {key.removeprefix("hard."): value for key, value in done.measures.items()}
    return row


def _split(count: int, seed: int, role: str, shifted: bool = False) -> ImageSplit:
    """A pattern at places 9 to 23 with a little noise; or anywhere on the circle."""
    rough = torch.randn(PATTERNS, 1, 6, generator=_generator(seed, "patterns"))
    smooth = F.interpolate(rough, size=15, mode="linear")[:, 0]
    targets = torch.arange(count) % PATTERNS
    images = 0.05 * torch.randn(count, 1, 1, LENGTH, generator=_generator(seed, role))
    images[:, 0, 0, 9:24] += 2 * smooth[targets]
    if shifted:
        by = torch.randint(LENGTH, (count, 1), generator=_generator(seed, role, "shifts"))
        images = images.gather(3, ((torch.arange(LENGTH) - by) % LENGTH)[:, None, None, :])
    return ImageSplit(images, targets, role)


@torch.no_grad()
def _judged(student: nn.Module, teacher: nn.Module, tests: Mapping[str, ImageSplit]) -> dict[str, float]:
    found = {}
    for name, split in tests.items():
        own, theirs = student.eval()(split.images), teacher(split.images)
        found[f"agreement, {name}"] = (own.argmax(1) == theirs.argmax(1)).float().mean().item()
        found[f"KL, {name}"] = disagreement(theirs, own, 1.0).item()
    return found


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("hard_toy", *parts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
