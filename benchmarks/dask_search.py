"""A search on Dask with two workers beside one: how many times as fast, and with the same result.

    python benchmarks/dask_search.py --candidates 500 --repeats 3 [--workers 1 2] [--offspring 200] [--out FILE.json]

Searches of students of `resnet` by `diswot` on 64 images of 3 x 32 x 32, each with a scheduler and workers of its own,
which take turns. The time is that of the whole search, from the first candidate to the result; starting the cluster is
told apart. All searches must find the same, to the last bit. Exit code 1: one did not.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from edgestill.pipeline.conformance import samples
from edgestill.pipeline.engines.dask import DaskConfig
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.search.config import SearchConfig
from edgestill.search.search import find_student
from edgestill.search.spaces import ResNetSpace

SEED = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--offspring", type=int, default=200, help="candidates of a generation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(json.dumps(machine), flush=True)
    times: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
    results = set()
    for turn in range(arguments.repeats):
        for workers in arguments.workers[:: 1 if turn % 2 == 0 else -1]:
            start_s, search_s, result = searched(arguments.candidates, arguments.offspring, workers)
            times[workers].append(search_s)
            results.add(result)
            print(f"{workers} workers: {search_s:.1f} s, after {start_s:.1f} s to the first score", flush=True)
    one = statistics.median(times[arguments.workers[0]])
    for workers, found in times.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{workers} workers: {middle:.1f} s ({low:.1f} to {high:.1f}, n {len(found)}), {one / middle:.2f} times")
    print("the same result every time" if len(results) == 1 else "the results DIFFER")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "seconds": times}, indent=1), encoding="utf-8")
    return int(len(results) > 1)


def searched(candidates: int, offspring: int, workers: int) -> tuple[float, float, str]:
    """Seconds to the first score, seconds from there to the end, and a digest of the result."""
    task, space = samples.image_task(3, 32, 10), ResNetSpace()
    config = SearchConfig.model_validate(
        {
            "scorer": "diswot", "baselines": (), "evaluations": candidates, "workers": workers,
            "strategy": {"name": "evolution", "offspring": offspring}, "budget": {"max_params": 10**9},
        }
    )  # fmt: skip
    teacher = space.build(space.parse("3-3-3/16-32-64"), task)
    moments: list[float] = []
    begun = time.perf_counter()
    result = find_student(
        config, task, samples.batch(task, 64), teacher, seed=SEED, engine=DaskConfig(),
        record=lambda entry, at=moments: at.append(time.perf_counter()),
    )  # fmt: skip
    return moments[0] - begun, time.perf_counter() - moments[0], digest(result)


if __name__ == "__main__":
    sys.exit(main())
