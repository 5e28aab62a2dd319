"""The tests that need a GPU, and what the GPU gives: training throughput by precision, latency of its formats.

    make gpu                     # or: python benchmarks/gpu.py [--tests-s 240] [--benchmark-s 180]

Both parts are bounded, so that all of it ends within eight minutes. Without a GPU nothing is run, and it says so.
Throughput is of plain supervised training of a ResNet on noise in memory, images a second after one untimed epoch, the
processor beside the GPU. Latency is the median of a student's GPU formats whose library is here, with the copies.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.child import interpreter
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.device import Compute, Precision
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.task import Task
from edgestill.pipeline.timing.latency_statistics import percentile
from edgestill.pipeline.timing.stopwatch import take_turns
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

TASK = Task(labels=tuple("0123456789"), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


def main() -> int:
    arguments = _arguments()
    if not torch.cuda.is_available():
        print("No GPU that torch can use is here: nothing was run (docs/howto/targets.md has the ways to one)")
        return 0
    begun = time.monotonic()
    code = _tests(arguments.tests_s)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    until = time.monotonic() + arguments.benchmark_s
    for precision in PRECISIONS:
        if time.monotonic() < until:
            speed = images_per_second(torch.device("cuda"), precision, arguments.images)
            print(f"training in {precision}: {speed:,.0f} images/s", flush=True)
    if time.monotonic() < until:
        speed = images_per_second(torch.device("cpu"), "fp32", arguments.images // 16)
        print(f"training on the processor in fp32: {speed:,.0f} images/s", flush=True)
    for name in [name for name, form in FORMATS.items() if form.runtime in GPU_RUNTIMES]:
        if time.monotonic() < until:
            print(f"{name}: {latency(name)}", flush=True)
    print(f"{time.monotonic() - begun:.0f} s in all")
    return code


GPU_RUNTIMES = frozenset(form.runtime for name, form in FORMATS.items() if name.startswith(("cuda_", "ort_t", "tens")))


def images_per_second(device: torch.device, precision: Precision, count: int) -> float:
    """Throughput of one epoch of training, after an untimed one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *TASK.input_shape), generator=generator, dtype=torch.uint8)
    train = ImageSplit(images, torch.randint(10, (count,), generator=generator), "train")
    network, ends = _network(), list[float]()

    def ended(record: object) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    few = ImageSplit(images[:2], train.targets[:2])
    config = TrainingConfig(epochs=3, batch_size=min(512, count), learning_rate=1e-3)
    fit(network, Supervised(), train, few, config, seed=0, device=device, observe=ended, compute=Compute(precision))
    return count / min(after - before for before, after in itertools.pairwise(ends))


def latency(name: str) -> str:
    """Median latency of a format in words, or why it has none here."""
    form = FORMATS[name]
    missing = form.missing()
    if missing is not None:
        return f"skipped, {missing}"
    network = _network().eval()
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        path = Path(folder, "student.onnx")
        path.write_bytes(to_onnx(network, TASK.inputs, 20))
        probes = TASK.inputs.probes(64)
        files = form.build(Source(path, network, TASK, probes), ExportConfig())
        for suffix, data in files.items():
            Path(folder, f"model{suffix}").write_bytes(data)
        run = form.open(Path(folder, f"model{next(iter(files))}"), 1)
        limits = {"warmup_s": 0.2, "duration_s": 1.0, "min_samples": 70, "max_samples": 20_000}
        samples = take_turns({name: lambda: run(probes[:1])}, **limits)[name]
    return f"{percentile(list(samples), 50):.4g} ms"


def _network() -> CifarResNet:
    network = CifarResNet((3, 3, 3), (16, 32, 64), num_classes=10, mean=TASK.mean, std=TASK.std)
    initialise(network, "kaiming", 0)
    return network


def _tests(limit_s: float) -> int:
    """Run the tests that are marked `gpu`; 1 if one fails, or they take too long."""
    command = interpreter("-m", "pytest", "-m", "gpu", "-q", "--timeout", "120", "tests")
    try:
        return int(subprocess.run(command, timeout=limit_s).returncode not in (0, 5))
    except subprocess.TimeoutExpired:
        print(f"the tests took more than {limit_s:g} s and were ended")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests-s", type=float, default=240, help="longest time of the tests")
    parser.add_argument("--benchmark-s", type=float, default=180, help="time after which no further figure is begun")
    parser.add_argument("--images", type=int, default=32_768, help="in an epoch on the GPU")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
