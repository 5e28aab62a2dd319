"""What a training-free score costs, in bare forward passes of the same candidate, and beside the published procedure.

    python benchmarks/score.py [--scorer diswot] [--architectures 50] [--threads 1] [--processes 2]

A candidate is scored as a search scores it, construction and initialisation included, and its bare forward pass is
the same network on the same batch, built beforehand, in training mode without gradients. It is taken twice: with the
batch as a search has it, channels last in memory, and in torch's own layout. All take turns, several times each, and
the medians are compared. Images are noise: what they show costs nothing. Counting parameters and FLOPs is the budget's
work, not the score's, and is timed beside it.

The published procedure (benchmarks/published.py: autograd, a fresh teacher a candidate) takes its turns too where
the scorer is diswot, in both layouts, with the same weights, and must give the same score to 1e-5. Last, all candidates
are scored in this process and in several, by turns; the processes are running before the first turn. Give it an idle
machine: a core that others use is missing from the last ratio.
"""

import argparse
import functools
import pickle
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lib.published import published_score

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.engines.pool import Pool
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import initialise, look
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TeacherConfig, build_teacher
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.attempt import attempt
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import Nb201Space


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=arguments.threads))
    task = Task(labels=tuple(map(str, range(10))), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    generator = torch.Generator().manual_seed(arguments.seed)
    inputs = torch.rand(arguments.batch_size, *task.input_shape, generator=generator)
    targets = torch.randint(task.num_classes, (arguments.batch_size,), generator=generator)
    plain = Batch(inputs, targets, torch.arange(arguments.batch_size))
    batch = plain._replace(inputs=inputs.contiguous(memory_format=torch.channels_last))
    space, rng = Nb201Space(), random.Random(arguments.seed)
    teacher = build_teacher(TeacherConfig(architecture="resnet56"), task)
    evaluator = Evaluator(space, task, [arguments.scorer], Conditions(batch, teacher, arguments.seed))
    architectures = [space.sample(rng) for _ in range(arguments.architectures)]
    counting, medians = [], []
    greatest_difference = 0.0
    for architecture in architectures:
        network = space.build(architecture, task).train()
        initialise(network, "gaussian", 0)
        try:
            evaluator(architecture)
        except CandidateError as error:
            print(f"left out of the ratios: {space.format(architecture)}: {error}")
            continue
        start = time.perf_counter()
        CostTable(space, task)(architecture)
        counting.append(time.perf_counter() - start)
        calls: list[Callable[[], Any]] = [
            partial(evaluator, architecture),
            partial(_forward, network, batch),
            partial(_forward, network, plain),
        ]
        if arguments.scorer == "diswot":
            seeds = (
                derive_seed(arguments.seed, "teacher"),
                derive_seed(arguments.seed, architecture.key, "gaussian", 0),
            )
            calls += [partial(_as_published, space, architecture, task, teacher, g, seeds) for g in (batch, plain)]
            difference = abs(calls[3]() - evaluator(architecture).values["diswot"])
            greatest_difference = max(greatest_difference, difference)
        _ = [call() for call in calls[:3]]
        taken: list[list[float]] = [[] for _ in calls]
        for _ in range(arguments.repeats):
            for position in rng.sample(range(len(calls)), len(calls)):  # what ran just before leaves the caches warm
                taken[position].append(_seconds(calls[position]))
        medians.append([statistics.median(turns) for turns in taken])
    scoring, bare, bare_plain, *published = zip(*medians, strict=True)
    machine = describe_machine()
    print(f"{machine['cpu']}, {arguments.threads} thread(s), torch {torch.__version__}, batch {arguments.batch_size}")
    print(f"{arguments.scorer} on {len(scoring)} NAS-Bench-201 architectures, {arguments.repeats} turns each:")
    print(f"  {len(scoring) / sum(scoring):.1f} candidates a second; {sum(scoring):.2f} s scoring")
    for layout, seconds in (("channels last, as scored", bare), ("torch's own layout", bare_plain)):
        ratios = sorted(a / b for a, b in zip(scoring, seconds, strict=True))
        print(f"  bare forward passes, {layout}: {sum(seconds):.2f} s, ratio {sum(scoring) / sum(seconds):.3f}")
        print(
            f"    a candidate: median {statistics.median(ratios):.3f}, lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f}"
        )
    print(f"  counting a candidate's cost: {1e3 * statistics.median(counting):.1f} ms")
    for layout, seconds in zip(("channels last", "torch's own layout"), published, strict=False):
        print(f"  as published (autograd), {layout}: {sum(seconds) / sum(scoring):.2f} times our time")
    if greatest_difference > 0:
        print(f"  its scores differ from ours by at most {greatest_difference:.1e}")
    if greatest_difference > 1e-5:
        raise SystemExit("the published procedure gives other scores")
    if arguments.processes > 1:
        one, several = _in_processes(arguments.processes, evaluator, arguments.scorer, architectures, arguments.repeats)
        ratios = sorted(a / b for a, b in zip(one, several, strict=True))
        rates = [len(architectures) / statistics.median(seconds) for seconds in (one, several)]
        print(
            f"  one process {rates[0]:.1f} candidates a second, {arguments.processes} processes {rates[1]:.1f}: "
            f"ratio of a turn, median "
            f"{statistics.median(ratios):.2f}, lowest {ratios[0]:.2f}, highest {ratios[-1]:.2f}"
        )


def _forward(network: torch.nn.Module, batch: Batch) -> None:
    with torch.no_grad():
        look(network, batch.inputs)


def _as_published(
    space: SearchSpace,
    architecture: Architecture,
    task: Task,
    teacher: torch.nn.Module,
    batch: Batch,
    seeds: tuple[int, int],
) -> float:
    return published_score(teacher, space.build(architecture, task), batch, seeds)


def _in_processes(
    count: int, evaluator: Evaluator, scorer: str, architectures: Sequence[Architecture], turns: int
) -> tuple[list[float], list[float]]:
    """Seconds for all candidates in this process and in `count`, by turns."""
    payload = pickle.dumps(functools.partial(attempt, evaluator, scorer))
    one, several = [], []

    def together(some: Sequence[Architecture]) -> None:
        assert all(answer.value.get("type") in (None, "dead") for answer in pool.answers(payload, some))

    with Pool(count) as pool:
        together(architectures)
        for _ in range(turns):
            one.append(_seconds(lambda: [attempt(evaluator, scorer, a) for a in architectures]))
            several.append(_seconds(lambda: together(architectures)))
    return one, several


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer", choices=list(SCORERS), default="diswot")
    parser.add_argument("--architectures", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="1 leaves the comparison of processes out")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
