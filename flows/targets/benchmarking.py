"""A bundle's benchmark on several targets, this machine among them or not."""

from collections.abc import Callable, Sequence

import numpy as np

from edgestill.export.benchmark.measure import Settings, benchmark
from edgestill.export.benchmark.result import Benchmark
from edgestill.export.benchmark.there import benchmark_there
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.device.document import ProfileDocument
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Job
from edgestill.flows.targets.sending import measured


def benchmark_on(
    opened: OpenedBundle,
    targets: Sequence[TargetConfig],
    inputs: np.ndarray,
    what: str,
    settings: Settings,
    threads: int | None,
    say: Callable[[str], None],
    trusted: bool,
) -> tuple[Benchmark, ...]:
    """Measure every format on every target, one target after the other.

    Args:
        threads: of each runtime; None takes each target's own number.

    Raises:
        TargetError: one cannot be reached, or cannot measure.
        ExportError: no format can be measured on one.
    """
    cautions: list[str] = []

    def on(job: Job, target: TargetConfig) -> ProfileDocument:
        return measured(job, target, None, say, cautions)

    found = []
    for target in targets:
        own = settings._replace(threads=threads or target.threads, repeats=target.repeats)
        if target.is_here:
            found.append(benchmark(opened, inputs, what, own, say, trusted).model_copy(update={"target": target.name}))
        else:
            found.append(benchmark_there(opened, target, inputs, what, own, on, trusted))
    for caution in cautions:
        say(f"caution: {caution}")
    return tuple(found)
