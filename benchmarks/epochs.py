"""What an epoch of each method costs, beside a plain supervised epoch of the same student.

    python benchmarks/epochs.py [--methods kd lelp hard random_affine kd_aif] [--images 4096] [--turns 5]

All train the same student on the same images with the same batch size, the teacher's outputs kept where the product
would; the preparation (a method's statistics of the data) is timed by itself. Epochs of all take turns in a random
order, the first of each, in which the teacher looks at the images, is left out, and the ratio is a turn's to the
supervised epoch of the same turn. Images are noise: what they show costs nothing. `--baseline random_affine` compares
with another method. Every epoch here is a training's first, so `kd_aif(warmup_epochs=1)` weighs the examples anew in
each: what it costs above `kd_aif` is the refresh. HARD's warm-up costs nothing, so time `hard(warmup_steps=0)`.

--plain adds the same supervised training as written by hand: a DataLoader of float images in torch's own layout,
without our loop. --compile adds ours with `device.compile: on`; compiling is timed apart.
"""

import argparse
import copy
import random
import statistics
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lib.bench import parse_recipe
from torch.utils.data import DataLoader, TensorDataset

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.base import Context
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.device import Compute, DeviceConfig, select_device
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Objective, Supervised

_CPU = torch.device("cpu")


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=arguments.threads))
    task = Task(
        labels=tuple(map(str, range(10))),
        input_shape=(3, arguments.side, arguments.side),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, role: str) -> ImageSplit:
        images = torch.randint(256, (count, *task.input_shape), generator=generator, dtype=torch.uint8)
        return ImageSplit(images, torch.randint(10, (count,), generator=generator), role)

    train, reference = noise(arguments.images, "train"), noise(512, "reference")
    teacher, student = _network(task, (16, 32, 64), 3), _network(task, tuple(arguments.widths), arguments.blocks)
    frozen(teacher)
    machine = describe_machine()
    print(
        f"{machine['cpu']}, {arguments.threads} thread(s), torch {torch.__version__}; {arguments.images:,} images of "
        f"{arguments.side} x {arguments.side}, batch {arguments.batch_size}; student of {arguments.blocks} block(s) a "
        f"stage, {'-'.join(map(str, arguments.widths))} wide"
    )
    epochs: dict[str, Callable[[], None]] = {"supervised": _epoch(student, Supervised(), train, arguments)}
    if arguments.plain:
        epochs["plain PyTorch loop"] = _by_hand(copy.deepcopy(student), train, arguments)
    if arguments.compile:
        compiled = _Compiled(copy.deepcopy(student), train, arguments)
        start = time.perf_counter()
        compiled()
        print(f"compiled: the first epoch, in which it compiles, {time.perf_counter() - start:.1f} s")
        epochs["supervised, compiled"] = compiled
    for label in arguments.methods:
        own = copy.deepcopy(student)
        recipe = make_recipe(DistillConfig.model_validate({"methods": parse_recipe(label)}).methods)
        start = time.perf_counter()
        told = Context(task, teacher, own, train, reference, _CPU, 0, _shipping(recipe, own), recipe.look_at_teacher)
        recipe.prepare(told, Augmentation())
        print(f"{label}: preparation {time.perf_counter() - start:.2f} s")
        epochs[label] = _epoch(own, recipe, train, arguments)
    taken: dict[str, list[float]] = {label: [] for label in epochs}
    rng = random.Random(0)
    for turn in range(arguments.turns + 1):
        for label in rng.sample(list(epochs), len(epochs)):
            start = time.perf_counter()
            epochs[label]()
            if turn:
                taken[label].append(time.perf_counter() - start)
    base = taken[arguments.baseline]
    print(f"| method | seconds an epoch | over {arguments.baseline}: median | lowest | highest |")
    print("| --- | --- | --- | --- | --- |")
    for label, seconds in taken.items():
        ratios = sorted(a / b for a, b in zip(seconds, base, strict=True))
        spread = f"{statistics.median(ratios):.2f} | {ratios[0]:.2f} | {ratios[-1]:.2f}"
        print(f"| `{label}` | {statistics.median(seconds):.2f} | {spread} |")


def _network(task: Task, widths: tuple[int, ...], blocks: int) -> CifarResNet:
    network = CifarResNet((blocks,) * 3, widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
    initialise(network, "kaiming", 0)
    return network


def _shipping(recipe: Recipe, student: torch.nn.Module) -> Callable[[], torch.nn.Module]:
    return lambda: recipe.deployable(student)


def _epoch(
    student: torch.nn.Module, objective: Objective, train: ImageSplit, arguments: argparse.Namespace
) -> Callable[[], None]:
    """One epoch of training; its validation is on two images."""
    validation = ImageSplit(train.images[:2], train.targets[:2])
    config = TrainingConfig(epochs=1, batch_size=arguments.batch_size, learning_rate=1e-3)

    def run() -> None:
        fit(student, objective, train, validation, config, seed=0, device=_CPU)

    return run


def _by_hand(student: torch.nn.Module, train: ImageSplit, arguments: argparse.Namespace) -> Callable[[], None]:
    """One epoch as a script of a user's has it."""
    assert isinstance(train.images, torch.Tensor)
    examples = TensorDataset(train.images.float() / 255, train.targets)
    loader = DataLoader(
        examples, arguments.batch_size, shuffle=True, drop_last=len(examples) % arguments.batch_size == 1
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def run() -> None:
        student.train()
        total = 0.0
        for images, targets in loader:
            loss = F.cross_entropy(student(images), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()

    return run


class _Compiled:
    """A training with compiled steps, in a thread of its own that does an epoch each time it is called."""

    def __init__(self, student: torch.nn.Module, train: ImageSplit, arguments: argparse.Namespace) -> None:
        self._given = student, train, arguments
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._failed: BaseException | None = None
        threading.Thread(target=self._train, daemon=True).start()

    def __call__(self) -> None:
        self._go.release()
        self._done.acquire()
        if self._failed is not None:
            raise self._failed

    def _train(self) -> None:
        student, train, arguments = self._given
        torch.set_num_threads(arguments.threads)
        config = TrainingConfig(epochs=arguments.turns + 3, batch_size=arguments.batch_size, learning_rate=1e-3)
        validation = ImageSplit(train.images[:2], train.targets[:2])
        compute = Compute(compile="on", tell=print)
        try:
            self._go.acquire()
            fit(
                student, Supervised(), train, validation, config, seed=0, device=_CPU, compute=compute,
                observe=lambda record: (self._done.release(), self._go.acquire()),
            )  # fmt: skip
        except BaseException as error:
            self._failed = error
            self._done.release()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["kd"], help="recipes, as in benchmarks/methods.py")
    parser.add_argument("--baseline", default="supervised")
    parser.add_argument("--plain", action="store_true", help="time a plain PyTorch loop too")
    parser.add_argument("--compile", action="store_true", help="time compiled steps too")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1, help="of the student, a stage")
    parser.add_argument("--widths", type=int, nargs=3, default=[8, 16, 32], help="of the student's stages")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
