"""What the eighth bit of INT8 weights is worth: accuracy with 7 and 8 bits, exact and as this processor computes.

    python benchmarks/int8_weights.py [--data digits | FILE.npz] [--space resnet] [--seeds 3] [--epochs 20]

A small student a seed is trained on labels, exported, and quantised by each calibration method. "Exact" are sums
without saturation (VNNI, Arm, ONNX Runtime's slower kernels elsewhere), "here" what this processor's own kernels give.
Differences are paired on the test examples; their 95 % interval is over all seeds' examples together.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from edgestill.distill.conformance.prepared import CPU
from edgestill.export.calibration import calibration_examples
from edgestill.export.onnx.quantize import METHODS, quantize
from edgestill.export.onnx.sessions import SessionRun, runner, runtime_name
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.datasets.npz import NpzConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import paired_difference
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.spaces import named_space

FILES = [(bits, exact) for bits in (8, 7) for exact in (True, False)]


class Answers(NamedTuple):
    right: np.ndarray  # [N] bool
    logits: np.ndarray  # [N, K]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    machine = describe_machine()
    print(f"{machine['cpu']}, {runtime_name()}, torch {torch.__version__}; {arguments.space} on {arguments.data}")
    found: dict[tuple[str, int, bool], list[tuple[np.ndarray, np.ndarray]]] = {}
    for seed in range(arguments.seeds):
        for key, pair in _one_seed(arguments, seed).items():
            found.setdefault(key, []).append(pair)
    for method in METHODS:
        for bits, exact in FILES:
            print(f"{method:<11} {bits} bits, {'exact' if exact else 'here '}: {_points(found[method, bits, exact])}")
        gained = [(old, new) for (_, old), (_, new) in zip(found[method, 8, True], found[method, 7, True], strict=True)]
        print(f"{method:<11} 7 bits over 8, exact: {_points(gained)}")


def _one_seed(arguments: argparse.Namespace, seed: int) -> dict[tuple[str, int, bool], tuple[np.ndarray, np.ndarray]]:
    """(method, bits, exact) to which test examples fp32 and the file get right."""
    config: Any = DigitsConfig() if arguments.data == "digits" else NpzConfig(path=Path(arguments.data))
    splits, test = load_splits(config, seed), load_test(config, seed)
    network = _trained(arguments, splits, seed)
    examples, found = calibration_examples(splits.reference, 256), {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "student.onnx"
        source.write_bytes(to_onnx(network, splits.task.inputs, 20))
        fp32 = _answers(runner(source), test)
        print(f"seed {seed}: fp32 {fp32.right.mean():.2%} of {len(test):,}", flush=True)
        for method in METHODS:
            for bits, exact in FILES:
                data = quantize(source, examples, method, 99.99, CPU, bits)
                answers = _answers(runner(data, exact=exact), test)
                found[method, bits, exact] = fp32.right, answers.right
                moved = np.abs(answers.logits - fp32.logits).max() / np.abs(fp32.logits).max()
                kind = f"{method}, {bits} bits, {'exact' if exact else 'here'}"
                print(
                    f"  {kind}: {answers.right.mean():.2%}, logits moved by up to {moved:.3f} of the largest",
                    flush=True,
                )
    return found


def _trained(arguments: argparse.Namespace, splits: Splits, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    task = splits.task
    if arguments.space == "resnet":
        network: nn.Module = CifarResNet(
            (1, 1, 1), (16, 32, 64), num_classes=task.num_classes, mean=task.mean, std=task.std
        )
    else:
        space = named_space(arguments.space)
        network = space.build(space.sample(random.Random(seed)), task)
    initialise(network, "kaiming", seed)
    config = TrainingConfig(epochs=arguments.epochs, learning_rate=0.05)
    fit(network, Supervised(), splits.train, splits.validation, config, seed=seed, device=torch.device("cpu"))
    return network.eval()


def _answers(run: SessionRun, split: ImageSplit) -> Answers:
    logits = np.concatenate([run(batch.inputs.contiguous().numpy()) for batch in split.batches(256)])
    return Answers(logits.argmax(1) == split.targets.numpy(), logits)


def _points(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """The second's accuracy over the first's, in points, with its interval and the seeds' own differences."""
    before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
    low, high = paired_difference(int((before & ~after).sum()), int((after & ~before).sum()), len(before))
    each = ", ".join(f"{100 * (new.mean() - old.mean()):+.2f}" for old, new in pairs)
    value = 100 * (after.mean() - before.mean())
    return f"{value:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}] on {len(before):,} (seeds {each})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="digits", help="digits, or an .npz file with x_train, y_train, x_test, y_test"
    )
    parser.add_argument(
        "--space", default="resnet", help="resnet (a ResNet-8 of 16, 32 and 64 channels), mobile, nb201, …"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
