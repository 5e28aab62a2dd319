"""What a training-free score costs, in bare forward passes of the same candidate, and beside the published procedure.

    python benchmarks/score.py [--scorer diswot] [--architectures 50] [--threads 1] [--processes 2]

A candidate is scored as a search scores it, construction and initialisation included, and its bare forward pass is
the same network on the same batch, built beforehand, in training mode without gradients. The two take turns, several
times each, and the medians are compared. Images are noise: what they show costs nothing. Counting parameters and
FLOPs is the budget's work, not the score's, and is timed beside it.

The published procedure (benchmarks/published.py: autograd, a fresh teacher a candidate) takes its turn too where
the scorer is diswot, with the same weights and batch, and must give the same score to 1e-5. Last, all candidates are
scored in this process and in several, by turns; the processes are running before the first turn. Give it an idle
machine: a core that others use is missing from the last ratio.
"""

import argparse
import pickle
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from published import published_score

from pipeline.data import Batch
from pipeline.frozen import derive_seed
from pipeline.network import initialise, look
from pipeline.provenance import describe_machine
from pipeline.task import Task
from pipeline.teacher import TeacherConfig, build_teacher
from search.attempt import attempt
from search.evaluate import CostTable, Evaluator
from search.parallel import Pool
from search.scorers import SCORERS
from search.space import Architecture
from search.spaces import Nb201Space


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    task = Task(labels=tuple(map(str, range(10))), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    generator = torch.Generator().manual_seed(arguments.seed)
    inputs = torch.rand(arguments.batch_size, *task.input_shape, generator=generator)
    targets = torch.randint(task.num_classes, (arguments.batch_size,), generator=generator)
    batch = Batch(inputs, targets, torch.arange(arguments.batch_size))
    space, rng = Nb201Space(), random.Random(arguments.seed)
    teacher = build_teacher(TeacherConfig(architecture="resnet56"), task)
    evaluator = Evaluator(space, task, batch, [arguments.scorer], teacher=teacher, seed=arguments.seed)
    ratios, scoring, bare, counting, published = [], [], [], [], []
    architectures = [space.sample(rng) for _ in range(arguments.architectures)]
    greatest_difference = 0.0
    for architecture in architectures:
        network = space.build(architecture, task).train()
        initialise(network, "gaussian", 0)

        def forward(network: torch.nn.Module = network) -> None:
            with torch.no_grad():
                look(network, inputs)

        def score(architecture=architecture) -> None:  # type: ignore[no-untyped-def]
            evaluator(architecture)

        def as_published(architecture=architecture) -> float:  # type: ignore[no-untyped-def]
            seeds = (
                derive_seed(arguments.seed, "teacher"),
                derive_seed(arguments.seed, architecture.key, "gaussian", 0),
            )
            return published_score(teacher, space.build(architecture, task), batch, seeds)

        start = time.perf_counter()
        CostTable(space, task)(architecture)
        counting.append(time.perf_counter() - start)
        forward(), score()
        calls = [forward, score]
        if arguments.scorer == "diswot":
            difference = abs(as_published() - evaluator(architecture).values["diswot"])
            greatest_difference = max(greatest_difference, difference)
            calls.append(as_published)
        taken = [[_seconds(call) for call in calls] for _ in range(arguments.repeats)]
        medians = [statistics.median(turns) for turns in zip(*taken, strict=True)]
        bare.append(medians[0])
        scoring.append(medians[1])
        published += medians[2:]
        ratios.append(scoring[-1] / bare[-1])
    ratios.sort()
    machine = describe_machine()
    print(f"{machine['cpu']}, {arguments.threads} thread(s), torch {torch.__version__}, batch {arguments.batch_size}")
    print(f"{arguments.scorer} on {len(ratios)} NAS-Bench-201 architectures, {arguments.repeats} turns each:")
    print(f"  total      {sum(scoring):.2f} s scoring / {sum(bare):.2f} s bare = {sum(scoring) / sum(bare):.3f}")
    print(f"  a candidate: median {statistics.median(ratios):.3f}, lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f}")
    print(f"  {len(scoring) / sum(scoring):.1f} candidates a second")
    print(f"  counting a candidate's cost: {1e3 * statistics.median(counting):.1f} ms")
    if published:
        print(
            f"  as published (autograd): {len(published) / sum(published):.1f} candidates a second, "
            f"{sum(published) / sum(scoring):.2f} times our time; scores differ by at most {greatest_difference:.1e}"
        )
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


def _in_processes(
    count: int, evaluator: Evaluator, scorer: str, architectures: Sequence[Architecture], turns: int
) -> tuple[list[float], list[float]]:
    """Seconds for all candidates in this process and in `count`, by turns."""
    payload = pickle.dumps((evaluator, scorer))
    one, several = [], []

    def together(some: Sequence[Architecture]) -> None:
        assert all("failure" not in outcome for outcome in pool.outcomes(payload, some))

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
