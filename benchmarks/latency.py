"""How well latencies are predicted from a few measured architectures: ours beside two plain baselines.

    python benchmarks/latency.py LATENCY.csv [--device raspi4_ms] [--space nb201] [--samples 60] [--test 2000]

LATENCY.csv has a header, an architecture a line in the space's form, and a column of ms for each device, as from
HW-NAS-Bench's measurements on a Raspberry Pi 4 and an FPGA (Li et al. 2021, arXiv:2103.10584). For each seed
60 architectures are drawn, a model is fitted to them, everything chosen by cross-validation inside these 60, and 2,000
others are predicted. Baselines, fitted to the same 60: ridge regression of latency on the numbers of operations (each
kind of the cell's string, dead or not), its penalty by leave-one-out; and a straight line in FLOPs.
"""

import argparse
import csv
import random
import re
import time
from pathlib import Path

import numpy as np
import torch

from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.search.latency.features import RUNS, operation_features
from edgestill.search.latency.fit import choose, fit, kendall_tau, predict
from edgestill.search.latency.model import trace_student
from edgestill.search.space import SearchSpace
from edgestill.search.spaces import SPACES, make_space

METHODS = ("latency model", "ridge on operation counts", "FLOPs only")


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    space = make_space(SPACES[arguments.space][0]())
    rows = list(csv.DictReader(arguments.csv.read_text(encoding="utf-8").splitlines()))
    devices = arguments.device or [name for name in rows[0] if name != "architecture"]
    machine = describe_machine()
    print(f"{machine['cpu']}, torch {torch.__version__}; {arguments.samples} to fit, {arguments.test} to predict")
    look = _Look(space, Task(labels=tuple("0123456789"), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3))
    kept = [row for row in rows if all(float(row[device]) >= arguments.least for device in devices)]
    print(f"{len(kept)} of {len(rows)} architectures have {arguments.least:g} ms or more on every device")
    for device in devices:
        print(device)
        results = np.array([_draw(kept, device, seed, arguments, look) for seed in arguments.seeds])
        for i, method in enumerate(METHODS):
            error, tau = results[:, i, 0], results[:, i, 1]
            print(
                f"  {method:<26} median relative error {error.mean():.2%} [{error.min():.2%}, {error.max():.2%}]  "
                f"tau {tau.mean():.3f} [{tau.min():.3f}, {tau.max():.3f}]"
            )


class _Look:
    """Features, operation counts and FLOPs of architectures, each looked at once."""

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self._space, self._task = space, task
        self._known: dict[str, tuple[dict[str, dict[str, float]], list[int], int]] = {}

    def __call__(self, text: str) -> tuple[dict[str, dict[str, float]], list[int], int]:
        if text not in self._known:
            architecture = self._space.parse(text)
            trace = trace_student(self._space, architecture, self._task)
            features = {runs: operation_features(trace, runs) for runs in RUNS}
            flops = sum(operation.macs for operation in trace.operations)
            words = re.findall(r"[a-z]\w+", text)
            counts = [words.count(name) for name in sorted(_OPERATIONS)] or [1]
            self._known[text] = features, counts, flops
        return self._known[text]


_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def _draw(
    rows: list[dict[str, str]], device: str, seed: int, arguments: argparse.Namespace, look: _Look
) -> list[tuple[float, float]]:
    drawn = random.Random(seed).sample(rows, arguments.samples + arguments.test)
    seen = [look(row["architecture"]) for row in drawn]
    latency = np.array([float(row[device]) for row in drawn])
    n = arguments.samples
    start = time.perf_counter()
    tables = {runs: [s[0][runs] for s in seen[:n]] for runs in RUNS}
    choice = choose(tables, latency[:n])
    fitted = fit(tables[choice.runs], latency[:n], choice)
    seconds = time.perf_counter() - start
    counts = np.array([s[1] for s in seen], dtype=float)
    flops = np.array([[s[2]] for s in seen], dtype=float)
    found = [
        predict(fitted, [s[0][choice.runs] for s in seen[n:]]),
        _ridge(counts[:n], latency[:n], counts[n:]),
        _line(flops[:n], latency[:n], flops[n:]),
    ]
    scores = [(float(np.median(np.abs(p / latency[n:] - 1))), kendall_tau(p, latency[n:])) for p in found]
    print(
        f"  seed {seed}: {scores[0][0]:.2%}, tau {scores[0][1]:.3f}; counts {choice.runs} operations, "
        f"{'with' if fitted.correction else 'no'} correction, fitted in {seconds:.1f} s",
        flush=True,
    )
    return scores


def _ridge(features: np.ndarray, latency: np.ndarray, others: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    found: np.ndarray = RidgeCV(np.logspace(-4, 3, 15)).fit(features, latency).predict(others)
    return found


def _line(features: np.ndarray, latency: np.ndarray, others: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LinearRegression

    found: np.ndarray = LinearRegression().fit(features, latency).predict(others)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, metavar="LATENCY.csv")
    parser.add_argument("--device", action="append", help="column; repeatable; default: every one")
    parser.add_argument("--space", choices=list(SPACES), default="nb201")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--least", type=float, default=0.1, help="ms; shorter ones are broken measurements")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
