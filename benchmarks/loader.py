"""Share of time that a student waits for its images, and images a second beside a plain torch DataLoader.

    python benchmarks/loader.py [--sides 32 96 224] [--images 512] [--batch 32] [--workers 2] [--threads 2]

Both see the same JPEG pictures, resized, cropped at random, flipped; both train the same small student, and both are
timed in this process, by turns. Ours decodes once into a file of rows (timed apart, by one thread and by as many as
there are cores) and crops on tensors; the other decodes in every epoch, in worker processes, with torchvision's
transforms, as most training scripts do.
`waits` is the share of wall time between asking for a batch and having it augmented.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from edgestill.pipeline.data.ahead import batches_ahead
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.rows import Fit, Pictures, rows_of
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.torchvision_compat import repair
from edgestill.search.space import Architecture
from edgestill.search.spaces import SPACES, make_space

AUGMENT = AugmentConfig(crop=(0.25, 1.0), flip=True)


def main() -> None:
    arguments = _arguments()
    print(
        f"{describe_machine()['cpu']}, {os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            _compare(side, Path(folder), arguments)


def _compare(side: int, folder: Path, arguments: argparse.Namespace) -> None:
    paths = list(_pictures(folder / "pictures", arguments.images, side))
    pictures = Pictures([path.name for path in paths], lambda: iter(paths), "benchmark")
    speeds_of_decoding = []
    for threads in sorted({1, os.cpu_count() or 1}):
        begun = time.perf_counter()
        images = rows_of(pictures, Fit((side, side), 3, "crop"), threads, folder / f"rows{threads}").images
        speed = len(images) / (time.perf_counter() - begun)
        speeds_of_decoding.append(f"{speed:,.0f} images a second by {threads} thread{'s' if threads > 1 else ''}")
    split = ImageSplit(images, torch.arange(len(images)) % 10)
    print(f"{side} x {side}: decoded once, {', '.join(speeds_of_decoding)}")
    ways = {
        "rows and tensors": lambda: _ours(split, arguments.batch),
        "DataLoader": lambda: _plain(paths, side, arguments),
    }
    speeds = {}
    for name, batches in ways.items():
        count, waited, seconds = _trained(_student(side), batches, arguments.seconds)
        speeds[name] = count / seconds
        print(
            f"  {name:<18} {count / seconds:8.1f} images a second, waits {waited / seconds:6.1%}, of {count:,} images"
        )
    print(f"  ratio {speeds['rows and tensors'] / speeds['DataLoader']:.2f}")


def _trained(student: nn.Module, epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]], limit: float) -> Any:
    """Train for some seconds after a first batch; return images, seconds waited and seconds."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    count, waited, begun = -1, 0.0, 0.0
    while True:
        batches = epoch()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            waited += time.perf_counter() - asked
            optimizer.zero_grad()
            F.cross_entropy(student(batch[0]), batch[1]).backward()
            optimizer.step()
            now = time.perf_counter()
            if count < 0:
                count, waited, begun = 0, 0.0, now
                continue
            count += len(batch[1])
            if now - begun > limit:
                return count, waited, now - begun


def _ours(split: ImageSplit, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    augmentation, generator = Augmentation(AUGMENT), torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(split), generator=generator).split(size)
    for batch in batches_ahead(split, chosen, torch.device("cpu")):
        found = augmentation(batch, 0, generator)
        yield found.inputs, found.targets


class _Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    def __init__(self, paths: list[Path], side: int) -> None:
        repair()
        from torchvision.transforms import v2

        self._paths = paths
        self._transform = v2.Compose(
            [
                v2.Resize(side),
                v2.CenterCrop(side),
                v2.RandomResizedCrop(side, scale=AUGMENT.crop),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[number]) as image:
            return self._transform(image.convert("RGB")), number % 10


def _plain(paths: list[Path], side: int, arguments: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    data = _Files(paths, side)
    yield from torch.utils.data.DataLoader(
        data, arguments.batch, shuffle=True, num_workers=arguments.workers, persistent_workers=False
    )


def _student(side: int) -> nn.Module:
    """Build the middle of the space for photographs."""
    space = make_space(SPACES["mobile"][0]())
    task = Task(labels=tuple("0123456789"), input_shape=(3, side, side), mean=(0.5,) * 3, std=(0.25,) * 3)
    genes = {gene.name: gene.choices[len(gene.choices) // 2] for gene in space.genes}
    return space.build(Architecture(space="mobile", choices=genes), task).train()


def _pictures(folder: Path, count: int, side: int) -> Iterator[Path]:
    """Save smooth random pictures a third larger than the side, as JPEG."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    large = side * 4 // 3
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        path = folder / f"{number:06}.jpg"
        coarse.resize((large, large), Image.Resampling.BICUBIC).save(path, quality=90)
        yield path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=2, help="of the student's training; 1 suits a busy machine")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    return parser.parse_args()


if __name__ == "__main__":
    main()
