"""Accuracy of teacher and shipped file on shifted test examples, in bounded time."""

# N examples

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from edgestill.export.quality import accuracy, logits_of
from edgestill.export.run import Run
from edgestill.export.tested.result import Robustness, ShiftedAccuracy
from edgestill.export.tested.shifts import Shift, shifted, shifts_of
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.task import Task

MOST_EXAMPLES, MOST_S = 500, 60.0  # of the test split; seconds
_SIZES = (MOST_EXAMPLES, 200, 100, 50)  # tried in turn where the time is short; figures of fewer examples tell nothing
_TRIED = 16  # examples that tell how long all will take


def robustness(teacher: Run, student: Run, test: ImageSplit, task: Task, coder: Coder | None) -> Robustness:
    """Measure both on the same examples, drawn by a fixed seed, as they are and under each shift."""
    shifts = shifts_of(task, coder)
    if not shifts:
        return Robustness(n=0, left_out="nothing is known to shift such inputs by")
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    each = _seconds_of_each((teacher, student), test, order)
    sizes = [size for size in _SIZES if min(size, len(test)) * each * (1 + len(shifts)) <= MOST_S]
    if not sizes:
        return Robustness(n=0, left_out=f"{_SIZES[-1]} examples would have taken more than {MOST_S:.0f} s")
    chosen = test.batch(order[: sizes[0]].sort().values)
    inputs, targets = chosen.inputs.contiguous().numpy(), chosen.targets.numpy()
    found = list(_measured((teacher, student), inputs, targets, shifts))
    fewer = sizes[0] < MOST_EXAMPLES and sizes[0] < len(test)
    return Robustness(
        n=len(targets),
        clean=found[0],
        rows=tuple(found[1:]),
        left_out=f"more examples would have taken more than {MOST_S:.0f} s" if fewer else "",
    )


def _measured(
    runs: tuple[Run, Run], inputs: np.ndarray, targets: np.ndarray, shifts: Sequence[Shift]
) -> Iterator[ShiftedAccuracy]:
    """Yield the accuracies on the inputs as they are, then under each shift."""
    for shift in (Shift("none", "", lambda given, rng: given), *shifts):
        given = shifted(shift, inputs)
        teacher, student = (accuracy(logits_of(run, given), targets) for run in runs)
        yield ShiftedAccuracy(shift=shift.family, strength=shift.strength, teacher=teacher, student=student)


def _seconds_of_each(runs: tuple[Run, Run], test: ImageSplit, order: torch.Tensor) -> float:
    """Time both on a few examples, after a call to warm up."""
    some = test.batch(order[:_TRIED]).inputs.contiguous().numpy()
    for run in runs:
        run(some[:1])
    start = time.perf_counter()
    for run in runs:
        run(some)
    return (time.perf_counter() - start) / len(some)
