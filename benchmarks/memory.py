"""Memory of training and distilling from images in files, as their number grows.

    python benchmarks/memory.py [--counts 10000 100000] [--side 96] [--steps 20] [--batch 64] [--folder DIR]
    python benchmarks/memory.py --counts 20000 --side 224
    python benchmarks/memory.py --counts 20000 --side 224 --teacher timm:resnet50 --student mobile

Images are random bytes, written straight to files of rows. Each line is a process of its own: it distils a
student by plain KD for a handful of steps, after the teacher's outputs on all images were computed and written, and
then trains a teacher for as many steps. The networks have a single layer: a real one adds its own feature maps, which
go with the batch and not with the number of images. With --teacher and --student they are real: the teacher answers
for each batch, as the preset photos has it, and the student, in place of a teacher, is trained too. The peak is of
memory that is the process's own (RssAnon: without the pages of mapped files, which the system takes back); the highest
resident size beside it counts those too.
"""

import argparse
import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import Batch, ImageSplit, Splits
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import AnyTeacherConfig, build_teacher
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.spaces import named_space

_AUGMENT = AugmentConfig(crop=(0.25, 1.0), flip=True, mixup=1.0)
_CPU = torch.device("cpu")
_AT_ONCE = 256  # images written


class _EnoughError(Exception):
    pass


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        _measure(arguments)
        return
    peaks = []
    for count in arguments.counts:
        command = [sys.executable, __file__, "--one", "--counts", str(count), "--side", str(arguments.side)]
        command += ["--steps", str(arguments.steps), "--batch", str(arguments.batch)]
        if arguments.teacher is not None:
            command += ["--teacher", arguments.teacher, "--student", arguments.student]
        if arguments.folder is not None:
            command += ["--folder", str(arguments.folder)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(found, flush=True)
        peaks.append(float(found.rsplit("peak ", 1)[1].split()[0]))
    if len(peaks) > 1:
        print(f"growth from the first to the last: {peaks[-1] / peaks[0] - 1:+.1%}")


def _measure(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(2)
    (count,) = arguments.counts
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, _Peak() as peak:
        os.environ["EDGESTILL_CACHE"] = folder
        data = _splits(Path(folder), count, arguments.side)
        begun = peak.now()
        _distil(data, arguments)
        distilled, peak.highest = peak.highest, 0
        _train(data, arguments)
        trained = peak.highest
    print(
        f"{count:,} images of {arguments.side} pixels ({data.train.images.shape.numel() / 1e9:.1f} GB): before "
        f"{begun:.0f} MB, distilling {distilled:.0f} MB, training {trained:.0f} MB, resident {peak.resident:.0f} MB; "
        f"peak {max(distilled, trained):.0f} MB"
    )


def _distil(data: Splits, arguments: argparse.Namespace) -> None:
    training = StudentTrainingConfig(epochs=1, batch_size=arguments.batch)
    student, teacher = _student(data.task, arguments), _teacher(data.task, arguments)
    _end_after(arguments.steps, student)
    if arguments.teacher is not None:  # its answers to new crops cannot be kept
        data = dataclasses.replace(data, augment=_AUGMENT)
    try:
        distill(student, teacher, data, DistillConfig(training=training), seed=0, device=_CPU)
    except _EnoughError:
        return
    raise AssertionError("the training ended before its steps were done")


def _train(data: Splits, arguments: argparse.Namespace) -> None:
    augmentation = Augmentation(_AUGMENT)
    network, config = _student(data.task, arguments), TrainingConfig(epochs=1, batch_size=arguments.batch)
    try:
        fit(
            network,
            _Few(arguments.steps),
            data.train,
            data.validation,
            config,
            seed=0,
            device=_CPU,
            augmentation=augmentation,
        )
    except _EnoughError:
        return
    raise AssertionError("the training ended before its steps were done")


class _Few(Supervised):
    """Ends the training after some steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        self._left -= 1
        if self._left < 0:
            raise _EnoughError
        return super().loss(network, batch)


def _student(task: Task, arguments: argparse.Namespace) -> nn.Module:
    if arguments.student is None:
        return _Patches()
    space = named_space(arguments.student)
    return space.build(max(space.sample_different(16, random.Random(0)), key=lambda one: one.key), task)


def _teacher(task: Task, arguments: argparse.Namespace) -> nn.Module:
    if arguments.teacher is None:
        return _Patches()
    config: Any = TypeAdapter(AnyTeacherConfig).validate_python(arguments.teacher)
    return build_teacher(config, task)


def _end_after(steps: int, network: nn.Module) -> None:
    """End the training by an error after some steps."""
    left = steps

    def count(module: nn.Module, inputs: Any) -> None:
        nonlocal left
        left -= module.training
        if left < 0:
            raise _EnoughError

    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(count)


class _Patches(nn.Module):
    """A classifier of a layer, as cheap as reading its images."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 3
        self.patches, self.linear = nn.Conv2d(3, 16, 8, stride=8), nn.Linear(16, 3)

    def forward_features(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.patches(inputs).relu()
        return found

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = features.mean((2, 3))
        found: Tensor = embedding if pre_logits else self.linear(embedding)
        return found

    def get_classifier(self) -> nn.Module:
        return self.linear

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


def _splits(folder: Path, count: int, side: int) -> Splits:
    rng = np.random.default_rng(0)
    path = folder / "images.rows"
    with path.open("wb") as file:
        for start in range(0, count, _AT_ONCE):
            file.write(rng.bytes(min(_AT_ONCE, count - start) * 3 * side * side))
    digests = rng.integers(0, 256, (count, 16), np.uint8)
    images = StoredImages([RowFile(path, digests)], (3, side, side))
    task = image_task(channels=3, side=side)
    few = splits(task, train=6)
    train = ImageSplit(images, torch.arange(count) % 3, "train")
    return dataclasses.replace(few, train=train, validation=few.train, digests={"train": "random"})


class _Peak:
    """Highest RssAnon of this process, looked at every 20 ms, in MB."""

    def __init__(self) -> None:
        self.highest = 0.0
        self._done = threading.Event()

    def now(self) -> float:
        return self._status("RssAnon")

    @property
    def resident(self) -> float:
        """Highest resident size, by the system's own count."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024

    def _look(self) -> None:
        while not self._done.is_set():
            self.highest = max(self.highest, self.now())
            time.sleep(0.02)

    def __enter__(self) -> "_Peak":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20, help="of each training")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=None, help="for files of up to 3 GB; default: the system's")
    parser.add_argument("--teacher", help="as in a configuration, such as timm:resnet50; with it a --student")
    parser.add_argument("--student", help="space that one is drawn from, such as mobile")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
