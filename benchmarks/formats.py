"""What each format costs and gives on a student of each space: bytes, latency, agreement with fp32.

    python benchmarks/formats.py [--seconds 3] [--formats fp16 int8 int8_tensorrt]

Students have random weights, which do not matter to size and speed, and running statistics of noise; the calibration is
`minmax` on 64 images of noise, so that agreement here says that a format computes the same function, not what it costs
in accuracy. A call is one image (or one text of 24 tokens) on one thread; files take turns. Speed is over fp32's, with
the 95 % interval over paired turns.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgestill.export.calibration import CalibrationConfig
from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.sessions import runtime_name
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.timing.latency_statistics import paired_ratio
from edgestill.pipeline.timing.timing import TimingConfig, time_interleaved
from edgestill.search.spaces import MobileConfig, Nb201Config, TextTransformerConfig, VitConfig, make_space

IMAGES = Task(labels=tuple("0123456789"), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.29,) * 3)
TEXTS = Task(kind="text", labels=("no", "yes"), input_shape=(48,), vocab_size=4000)
TOKENS = 24


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = describe_machine()
    print(f"{machine['cpu']}, 1 thread, {runtime_name()}, torch {torch.__version__}, {arguments.seconds:g} s a file")
    print("student           format          bytes    times smaller   p50 ms   times fp32's speed     same answer")
    for name, network, task in students():
        for line in rows(name, network, task, arguments):
            print(line, flush=True)


def students() -> list[tuple[str, nn.Module, Task]]:
    """(name, network in evaluation mode, task): a ResNet-20, one whose widths are no multiples of 16, other spaces'."""
    found: list[tuple[str, nn.Module, Task]] = [
        (name, CifarResNet((3, 3, 3), widths, num_classes=10, mean=IMAGES.mean, std=IMAGES.std), IMAGES)
        for name, widths in (("resnet20", (16, 32, 64)), ("resnet20 8-12-64", (8, 12, 64)))
    ]
    for config in (MobileConfig(), Nb201Config(), VitConfig(), TextTransformerConfig()):
        space = make_space(config)
        task = TEXTS if space.inputs == "text" else IMAGES
        found.append((config.name, space.build(space.sample(random.Random(0)), task), task))
    for _, network, task in found:
        with torch.no_grad():
            for _ in range(3):
                network.train()(torch.from_numpy(task.inputs.probes(64)))
        network.eval()
    return found


def rows(name: str, network: nn.Module, task: Task, arguments: argparse.Namespace) -> list[str]:
    """A line for fp32 and for each format."""
    config = ExportConfig(calibration=CalibrationConfig(method="minmax"))
    examples = task.inputs.probes(64)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.onnx"
        fp32.write_bytes(to_onnx(network, task.inputs, config.opset))
        source, runs, sizes = Source(fp32, network, task, examples), {}, {}
        for kind in ("fp32", *arguments.formats):
            form = FORMATS[kind]
            files = form.build(source, config)
            for suffix, data in files.items():
                Path(folder, f"{kind}{suffix}").write_bytes(data)
            runs[kind], sizes[kind] = form.open(Path(folder, f"{kind}{form.suffix}"), 1), sum(map(len, files.values()))
    single = np.ascontiguousarray(examples[:1, :TOKENS] if task.kind == "text" else examples[:1])
    timing = TimingConfig(warmup_s=0.3, duration_s=arguments.seconds)
    timings = time_interleaved({kind: lambda run=run: run(single) for kind, run in runs.items()}, timing)
    expected, lines = runs["fp32"](examples).argmax(1), []
    for kind, run in runs.items():
        ratio, (low, high) = paired_ratio(timings["fp32"].samples_ms, timings[kind].samples_ms)
        same = (run(examples).argmax(1) == expected).mean()
        lines.append(
            f"{name:<17} {kind:<14} {sizes[kind]:>9,} {sizes['fp32'] / sizes[kind]:>12.2f} "
            f"{timings[kind].percentile(50):>12.4f}   {ratio:.2f} [{low:.2f}, {high:.2f}] {same:>16.1%}"
        )
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed calls, a file")
    parser.add_argument("--formats", nargs="+", default=["fp16", "int8", "int8_tensorrt"], choices=list(FORMATS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
