"""What a training-free score costs, in bare forward passes of the same candidate.

    python benchmarks/score.py [--scorer diswot] [--architectures 50] [--threads 1]

A candidate is scored as a search scores it, construction and initialisation included, and its bare forward pass is
the same network on the same batch, built beforehand, in training mode without gradients. The two take turns, several
times each, and the medians are compared. Images are noise: what they show costs nothing. Counting parameters and
FLOPs is the budget's work, not the score's, and is timed beside it.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from pipeline.data import Batch
from pipeline.network import initialise, look
from pipeline.provenance import describe_machine
from pipeline.task import Task
from pipeline.teacher import TeacherConfig, build_teacher
from search.evaluate import CostTable, Evaluator
from search.scorers import SCORERS
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
    ratios, scoring, bare, counting = [], [], [], []
    for _ in range(arguments.architectures):
        architecture = space.sample(rng)
        network = space.build(architecture, task).train()
        initialise(network, "gaussian", 0)

        def forward(network: torch.nn.Module = network) -> None:
            with torch.no_grad():
                look(network, inputs)

        def score(architecture=architecture) -> None:  # type: ignore[no-untyped-def]
            evaluator(architecture)

        start = time.perf_counter()
        CostTable(space, task)(architecture)
        counting.append(time.perf_counter() - start)
        forward(), score()
        taken = [(_seconds(forward), _seconds(score)) for _ in range(arguments.repeats)]
        bare.append(statistics.median(pair[0] for pair in taken))
        scoring.append(statistics.median(pair[1] for pair in taken))
        ratios.append(scoring[-1] / bare[-1])
    ratios.sort()
    machine = describe_machine()
    print(f"{machine['cpu']}, {arguments.threads} thread(s), torch {torch.__version__}, batch {arguments.batch_size}")
    print(f"{arguments.scorer} on {len(ratios)} NAS-Bench-201 architectures, {arguments.repeats} turns each:")
    print(f"  total      {sum(scoring):.2f} s scoring / {sum(bare):.2f} s bare = {sum(scoring) / sum(bare):.3f}")
    print(f"  a candidate: median {statistics.median(ratios):.3f}, lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f}")
    print(f"  {len(scoring) / sum(scoring):.1f} candidates a second")
    print(f"  counting a candidate's cost: {1e3 * statistics.median(counting):.1f} ms")


def _seconds(call: Callable[[], None]) -> float:
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
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
