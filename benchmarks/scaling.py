"""Costs of scaling out: scoring by the number of workers, Dask beside processes, studies in a file and on a server.

    python benchmarks/scaling.py [--workers 1 2 4 8] [--candidates 16] [--repeats 3] [--trials 20] [--out scaling.json]

The measured costs then drive a simulation of larger machines: a search of 100,000 candidates in generations on up to
1,000 workers. Its only parts are a candidate's time, which each worker spends, the searching process's own times a
candidate (counting its costs, before its generation is scored, and sending it), which nobody shares, and the wait at a
generation's end. Network, memory and failures are not in it.
"""

import argparse
import heapq
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgestill.distill.config import DistillConfig, TuneConfig
from edgestill.distill.study_server import study_place
from edgestill.distill.tune import tune
from edgestill.pipeline.conformance import samples
from edgestill.pipeline.engines import make_cluster
from edgestill.pipeline.engines.base import packed
from edgestill.pipeline.engines.dask import DaskConfig
from edgestill.pipeline.engines.machine import ProcessesConfig
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture
from edgestill.search.spaces import ResNetSpace

SCORER, SEED = "diswot", 0
GENERATION, SIMULATED = (8, 200, 2000), (1, 10, 100, 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": describe_machine(), "candidates": arguments.candidates}
    print(json.dumps(found["machine"]), flush=True)
    found |= scoring(arguments.candidates, arguments.repeats, arguments.workers)
    found |= {"cost_s": cost_s(arguments.candidates), "dask_driver_s": driver_s(500)}
    print(f"searching process: {1e3 * found['cost_s']:.2f} ms to count a candidate, ", end="")
    print(f"{1e3 * found['dask_driver_s']:.2f} ms to send it by Dask and its own scheduler", flush=True)
    found["trials_a_minute"] = {where: trials_a_minute(where, arguments.trials) for where in ("file", "server")}
    print(f"trials a minute that take no time: {found['trials_a_minute']}", flush=True)
    candidate_s = statistics.median(found["processes"][min(arguments.workers)])
    found["simulated"] = simulated(candidate_s, found["cost_s"], found["dask_driver_s"])
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def scoring(count: int, repeats: int, sizes: Sequence[int]) -> dict[str, dict[int, list[float]]]:
    """Seconds of wall time a candidate, by engine and number of workers, one for each repeat."""
    evaluator, architectures = evaluated(count)
    found: dict[str, dict[int, list[float]]] = {"processes": {}, "dask": {}}
    for name, engine in (("processes", ProcessesConfig()), ("dask", DaskConfig())):
        for workers in sizes if name == "processes" else sizes[:2]:
            with Workshop(workers, engine=engine) as workshop:
                score = workshop.scorer(evaluator, SCORER)
                list(score(architectures[:workers] * 2))  # starts every worker
                times = [timed(lambda s=score: list(s(architectures))) / count for _ in range(repeats)]
            found[name][workers] = times
            low, middle, high = min(times), statistics.median(times), max(times)
            print(f"{name:9} {workers} workers: {middle:.4f} s a candidate ({low:.4f} to {high:.4f})", flush=True)
    return found


def evaluated(count: int) -> tuple[Evaluator, list[Architecture]]:
    task, space = samples.image_task(3, 32, 10), ResNetSpace()
    teacher = space.build(space.parse("3-3-3/16-32-64"), task)
    evaluator = Evaluator(space, task, [SCORER], Conditions(samples.batch(task, 64), teacher, SEED, guard=True))
    return evaluator, list(space.sample_different(count, random.Random(SEED)))


def cost_s(count: int) -> float:
    """Seconds in which the searching process has a candidate's parameters and FLOPs counted."""
    space, task = ResNetSpace(), samples.image_task(3, 32, 10)
    architectures = list(space.sample_different(count, random.Random(SEED + 1)))
    with Workshop(1) as workshop:
        counts = CostTable(space, task, apart=workshop.apart)
        counts(space.parse("1-1-1/16-32-64"))
        return timed(lambda: [counts(architecture) for architecture in architectures]) / count


def driver_s(count: int) -> float:
    """Processor seconds of this process, Dask's scheduler in it, for an item that takes its worker no time."""
    with make_cluster(DaskConfig(), 2) as cluster:
        list(cluster.answers(packed(abs), range(50)))
        begun = time.process_time()
        list(cluster.answers(packed(abs), range(count)))
        return (time.process_time() - begun) / count


def trials_a_minute(where: str, trials: int) -> float:
    """Finished trials a minute of a study whose trainings take no time; NaN without a server."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tune" / "study.db"
        file.parent.mkdir()
        config = TuneConfig(trials=trials, epochs=3)
        if where == "file":
            return 60 * trials / timed(lambda: tune(config, DistillConfig(), instant, file, seed=SEED))
        sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "plugins"))
        from postgres import Server, binaries

        programs = binaries()
        if programs is None:
            return float("nan")
        server = Server(Path(tempfile.mkdtemp()), programs)
        try:
            place = study_place(server.address(), file)
            return 60 * trials / timed(lambda: tune(config, DistillConfig(), instant, place, seed=SEED))
        finally:
            server.kill()


def instant(config: DistillConfig, trial: int, observe: Callable[[EpochRecord], None]) -> float:
    for epoch in range(3):
        observe(
            EpochRecord(
                epoch=epoch + 1, learning_rate=config.training.learning_rate, loss=1.0, terms={}, seconds=0.0,
                validation_accuracy=0.5 + 0.01 * epoch, validation_cross_entropy=1.0,
            )
        )  # fmt: skip
    return 0.52


def simulated(candidate_s: float, cost_s: float, send_s: float, total: int = 100_000) -> list[dict[str, float]]:
    """Simulate the search of `total` candidates; print a line for each number of workers and generation."""
    rows = []
    for generation in GENERATION:
        for workers in SIMULATED:
            seconds = search_s(total, workers, generation, candidate_s, cost_s, send_s)
            speedup = total * (candidate_s + cost_s + send_s) / seconds
            rows.append({"generation": generation, "workers": workers, "hours": seconds / 3600, "speedup": speedup})
            print(f"generations of {generation:5}, {workers:5} workers: {seconds / 3600:8.2f} h, {speedup:6.1f} times")
    return rows


def search_s(total: int, workers: int, generation: int, candidate_s: float, cost_s: float, send_s: float) -> float:
    """Seconds of a search: a generation is counted, then sent one by one, and its last candidate is waited for."""
    rng, now = random.Random(SEED), 0.0
    for size in generations(total, generation):
        now += size * cost_s
        free, ends = [now] * min(workers, size), now
        heapq.heapify(free)
        for _ in range(size):
            now += send_s
            begun = max(now, heapq.heappop(free))
            ended = begun + candidate_s * rng.uniform(0.5, 1.5)
            heapq.heappush(free, ended)
            ends = max(ends, ended)
        now = max(now, ends)
    return now


def generations(total: int, size: int) -> Iterator[int]:
    while total > 0:
        yield min(size, total)
        total -= size


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
