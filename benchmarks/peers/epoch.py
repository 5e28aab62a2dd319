"""An epoch of plain KD beside other tools': same student, teacher, images, batch and cores, in one run.

    python benchmarks/peers/epoch.py [--torchdistill FOLDER] [--timm-script train.py] [--torchdistill-script FILE.py]

A ResNet-34 teaches a ResNet-18, both with random weights, on JPEG files of noise in an ImageFolder, cropped and flipped
at random. Each tool trains in a process of its own on the same cores, as its users train with it; all take turns in a
random order. The first epoch of a turn is left out. An epoch is the time between two marks that the tool prints once an
epoch, so it includes validation on a batch. Ratios are of the images a second of one turn, and their interval is that
of the mean of the logarithms over turns (Student's t, 95%).

- edgestill: the stage `distill` of a run of `edgestill.compress`.
- timm: its own training script with `--kd-model-name`, if `--timm-script` names it: train.py of the repository
  huggingface/pytorch-image-models, which its wheel lacks. Otherwise timm's loader, task of distillation, optimizer and
  schedule in a loop of ours (timm_loop.py).
- torchdistill: `pip install --no-deps --target FOLDER torchdistill`, and `--torchdistill FOLDER`. Its own script is
  examples/torchvision/image_classification.py of the repository yoshitomo-matsubara/torchdistill
  (`--torchdistill-script`); otherwise its distillation box in the same loop (torchdistill_loop.py).
"""

import argparse
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from PIL import Image

from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.torchvision_compat import repair

HERE = Path(__file__).resolve().parent
MARK = r"^epoch \d+ is over"
CLASSES, BATCHES_OF_VALIDATION = 10, 1


class Peer(NamedTuple):
    name: str
    command: tuple[str, ...]
    mark: str = MARK  # of a line that it prints once an epoch
    path: str = ""  # folder of its package


def main() -> None:
    arguments = _arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_images(folder / "images", arguments)
        write_teacher(folder)
        peers = [*present(folder, arguments)]
        machine = describe_machine()
        print(
            f"{machine['cpu']}, {arguments.threads} thread(s), {arguments.workers} worker(s) of each loader, torch "
            f"{torch.__version__}; {arguments.images:,} JPEGs of {arguments.side} pixels, batch {arguments.batch_size}"
        )
        rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
        rng = random.Random(0)
        for turn in range(arguments.turns):
            for peer in rng.sample(peers, len(peers)):
                seconds, images = epochs_of(peer, folder, arguments)
                rates[peer.name].append(images / statistics.fmean(seconds))
                print(f"turn {turn + 1}: {peer.name} {rates[peer.name][-1]:.1f} images a second", flush=True)
        print(table(rates))


def table(rates: dict[str, list[float]]) -> str:
    """Format the images a second of each tool, and how many times as many edgestill has."""
    ours = rates["edgestill"]
    lines = ["| | images a second: median | lowest | highest | edgestill's over it |", "|" + " --- |" * 5]
    for name, found in rates.items():
        ratio = "1" if name == "edgestill" else ratio_words([a / b for a, b in zip(ours, found, strict=True)])
        lines.append(f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} | {max(found):.1f} | {ratio} |")
    return "\n".join(lines)


def ratio_words(ratios: Sequence[float]) -> str:
    """Give the geometric mean of ratios with its 95% interval, by Student's t of their logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, n = statistics.fmean(logs), len(logs)
    if n < 2:
        return f"{math.exp(mean):.2f} (one turn)"
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * statistics.stdev(logs) / math.sqrt(n)
    return f"{math.exp(mean):.2f} [{math.exp(mean - half):.2f}, {math.exp(mean + half):.2f}]"


def epochs_of(peer: Peer, folder: Path, arguments: argparse.Namespace) -> tuple[list[float], int]:
    """Train once and return the seconds of the epochs after the first, and the images of an epoch.

    Raises:
        RuntimeError: the tool failed; its last lines.
    """
    path = os.pathsep.join(filter(None, [peer.path, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    marks, images, said = [], arguments.images, []
    with subprocess.Popen(
        peer.command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if re.search(peer.mark, line) and len(marks) < arguments.epochs:
                marks.append(time.perf_counter())
            if found := re.match(r"images (\d+)", line):
                images = int(found[1])
    if process.returncode or len(marks) < arguments.epochs:
        last = "".join(said[-20:])
        raise RuntimeError(f"{peer.name} ended with {process.returncode} after {len(marks)} epochs:\n{last}")
    return [after - before for before, after in pairwise(marks)], images


def present(folder: Path, arguments: argparse.Namespace) -> Sequence[Peer]:
    """List the tools that are here, and say how to get the others."""
    ours = ("ours.py", *arguments.set)
    found = [Peer("edgestill", _loop(arguments, *ours))]
    if find_spec("timm") is None:
        print("timm is not here: pip install timm")
    elif arguments.timm_script:
        found.append(Peer("timm's train.py", _script(arguments.timm_script, *timm_flags(arguments)), r"Test.*: \[ *0/"))
    else:
        print("timm by a loop of ours: its train.py is not in its wheel; --timm-script names it (see --help)")
        found.append(Peer("timm (loop)", _loop(arguments, "timm_loop.py")))
    if arguments.torchdistill is None:
        print("torchdistill is not here: pip install --no-deps --target FOLDER torchdistill; --torchdistill FOLDER")
        return found
    (folder / "kd.yaml").write_text(torchdistill_config(arguments), encoding="utf-8")
    path = str(arguments.torchdistill.resolve())
    if arguments.torchdistill_script:
        command = _script(arguments.torchdistill_script, "--config", "kd.yaml", "--device", "cpu", "--seed", "0")
        found.append(Peer("torchdistill's script", command, r"\* Acc@1", path))
    else:
        print("torchdistill by its script's loop, written anew: --torchdistill-script names the script (see --help)")
        found.append(Peer("torchdistill (loop)", _loop(arguments, "torchdistill_loop.py"), path=path))
    return found


def _loop(arguments: argparse.Namespace, script: str, *more: str) -> tuple[str, ...]:
    sizes = (arguments.threads, arguments.workers, arguments.epochs, arguments.batch_size, arguments.side)
    return (sys.executable, str(HERE / script), *map(str, sizes), *more)


def _script(script: Path, *flags: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "script.py"), str(script.resolve()), *flags)


def timm_flags(arguments: argparse.Namespace) -> tuple[str, ...]:
    given = {
        "--model": "resnet18", "--kd-model-name": "resnet34", "--task-loss-weight": "0.5", "--kd-temperature": "4",
        "--num-classes": CLASSES, "--img-size": arguments.side, "--batch-size": arguments.batch_size,
        "--epochs": arguments.epochs, "--workers": arguments.workers, "--device": "cpu", "--opt": "sgd", "--lr": 0.01,
        "--warmup-epochs": 0, "--smoothing": 0, "--color-jitter": 0, "--scale": "0.25 1.0", "--ratio": "0.75 1.3333",
        "--train-interpolation": "bilinear", "--output": "timm", "--checkpoint-hist": 1, "--cooldown-epochs": 0,
    }  # fmt: skip
    flags = [part for flag, value in given.items() for part in (flag, *str(value).split())]
    return ("images", "--no-prefetcher", *flags)


def torchdistill_config(arguments: argparse.Namespace) -> str:
    """Write its configuration of plain KD for ImageNet with this run's sizes."""
    text = (HERE / "torchdistill_kd.yaml").read_text(encoding="utf-8")
    sizes = {
        "SIDE": arguments.side, "EPOCHS": arguments.epochs, "BATCH": arguments.batch_size,
        "WORKERS": arguments.workers, "CLASSES": CLASSES,
    }  # fmt: skip
    for name, value in sizes.items():
        text = text.replace(name, str(value))
    return text


def write_images(root: Path, arguments: argparse.Namespace) -> None:
    """Write train, validation and test folders of JPEGs, which are noise."""
    rng = np.random.default_rng(0)
    few = arguments.batch_size * BATCHES_OF_VALIDATION
    for split, count in (("train", arguments.images), ("validation", few), ("test", few)):
        for n in range(count):
            place = root / split / f"class{n % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (arguments.side, arguments.side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{n:05}.jpg", quality=90)


def write_teacher(folder: Path) -> None:
    """Write a ResNet-34's random weights, whose names are the same in timm and torchvision."""
    repair()
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet34", num_classes=CLASSES).state_dict(), folder / "teacher.pt")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="of training; a multiple of the batch")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4, help="of a turn; the first is left out")
    parser.add_argument("--threads", type=int, default=2, help="cores, and threads of torch")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images, for the others")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], help="further settings of edgestill's run, key=value")
    parser.add_argument("--timm-script", type=Path, help="timm's train.py")
    parser.add_argument("--torchdistill", type=Path, help="the folder that torchdistill was installed into")
    parser.add_argument("--torchdistill-script", type=Path, help="its image_classification.py")
    return parser.parse_args()


if __name__ == "__main__":
    main()
