"""How many students a search has to measure: all, against those that a model which learns as it goes leaves open.

    python benchmarks/latency_learning.py [--space mobile resnet] [--device synthetic] [--seeds 0 1 2 3 4]

Both searches have the same budget, seed and device, and a student has one latency, whichever search asks for it: if
the two find another winner, the model was wrong. The limit is a quantile of the latencies of 40 random students.
`synthetic` is a roofline with 3 % of noise; `here` exports and times students in ONNX Runtime on this machine.
Candidates are scored by their parameters, which drives a search to the limit, where a model is least sure.
"""

import argparse
import random
import time
from collections.abc import Callable

import numpy as np
import torch

from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.flows.latency import export_student, median_ms
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.trace import Trace
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.search.config import SearchConfig
from edgestill.search.hardware_costs import Latency, LatencySource
from edgestill.search.latency.model import trace_student
from edgestill.search.result import SearchResult
from edgestill.search.search import find_student
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import SPACES, make_space

TASK = Task(labels=tuple("0123456789"), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
TIMING = TimingConfig(warmup_s=0.02, duration_s=0.1, min_samples=30)
NOISE = 0.03


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    machine = describe_machine()
    print(
        f"{machine['cpu']}, torch {torch.__version__}; device {arguments.device}, {arguments.evaluations} evaluations"
    )
    shares = []
    for name in arguments.space:
        space = make_space(SPACES[name][0]())
        for seed in arguments.seeds:
            device = _Device(space, arguments.device)
            drawn = space.sample_different(40, random.Random(derive_seed(seed, "limit")))
            limit = float(f"{np.quantile([device(one) for one in drawn], arguments.quantile):.3g}")
            every, asked, seconds = _searched(space, device, limit, seed, arguments.evaluations, learns=False)
            learnt, fewer, less = _searched(space, device, limit, seed, arguments.evaluations, learns=True)
            shares.append(fewer / asked)
            same = len({c.architecture for c in every.candidates} & {c.architecture for c in learnt.candidates})
            print(
                f"{name} seed {seed}, at most {limit:g} ms: {'same winner' if _same(every, learnt) else 'OTHER WINNER'}"
                f" {learnt.winner.architecture}, measured {fewer} of {asked} ({fewer / asked:.0%}); {seconds:.0f} s, "
                f"{less:.0f} s; {same} of {len(every.candidates)} candidates are the same",
                flush=True,
            )
    print(f"measured, n = {len(shares)}: mean {np.mean(shares):.1%} [{min(shares):.1%}, {max(shares):.1%}] of all")


class _Device:
    """Function from a student to its latency; a student is timed once."""

    def __init__(self, space: SearchSpace, kind: str) -> None:
        self._space, self._kind = space, kind
        self._known: dict[str, float] = {}

    def __call__(self, architecture: Architecture) -> float:
        text = self._space.format(architecture)
        if text not in self._known:
            measure = _timed if self._kind == "here" else _roofline
            self._known[text] = measure(self._space, architecture, text)
        return self._known[text]


def _timed(space: SearchSpace, architecture: Architecture, text: str) -> float:
    data = export_student(space, architecture, TASK, 20)
    return median_ms(time_files({text: data}, ProbeSettings(TIMING, 1, 1, length=32))[text])


def _roofline(space: SearchSpace, architecture: Architecture, text: str) -> float:
    """Each operation takes a microsecond, and the longer of its arithmetic and its memory traffic."""
    trace: Trace = trace_student(space, architecture, TASK)
    latency = 0.02
    for operation in trace.operations:
        if operation.kind != "fill":
            moved = sum(trace.values[value].bytes for value in (*operation.reads, *operation.writes))
            rate = 1.5e6 if operation.kind == "depthwise" else 8e6
            latency += 0.001 + max(operation.macs / rate, moved / 6e6)
    rng = np.random.default_rng(derive_seed(0, text))
    return latency * float(np.exp(NOISE * rng.standard_normal()))


def _searched(
    space: SearchSpace, device: Callable[[Architecture], float], limit: float, seed: int, evaluations: int, learns: bool
) -> tuple[SearchResult, int, float]:
    """Return the result, the number of students that were measured, and seconds."""
    asked: set[str] = set()

    def measure(architecture: Architecture) -> float:
        asked.add(architecture.key)
        return device(architecture)

    config = SearchConfig(
        space={"name": space.name},
        scorer="params",
        baselines=("flops",),
        evaluations=evaluations,
        draws=1,
        budget={"max_latency_ms": limit},
        workers=1,
    )
    batch = Batch(torch.rand(2, *TASK.input_shape), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    source = LatencySource(lambda one, trace: Latency(measure(one), None), measure, True, learns)
    begun = time.perf_counter()
    found = find_student(config, TASK, batch, None, seed=seed, latency=source)
    return found, len(asked), time.perf_counter() - begun


def _same(one: SearchResult, other: SearchResult) -> bool:
    return one.winner.architecture == other.winner.architecture


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", nargs="+", default=["mobile", "resnet"])
    parser.add_argument("--device", choices=["synthetic", "here"], default="synthetic")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--quantile", type=float, default=0.4, help="of random students' latencies, as the limit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
