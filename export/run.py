"""Types of a call to a model's file: inputs in, logits out."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

T = TypeVar("T")
Run = Callable[[np.ndarray], np.ndarray]
"""Images [B, C, H, W] float32 in [0, 1], or token ids [B, T] int64, to logits [B, K] float32."""


@runtime_checkable
class Fed(Protocol):
    """`Run` in two steps. A device has its inputs in the file's form already, so a latency is of the second alone."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray: ...

    def feed(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Convert inputs to the file's form."""

    def run(self, given: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits of converted inputs."""


@runtime_checkable
class Parted(Protocol):
    """`Run` on a separate device: a call consists of copies and of the device's work between them."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray: ...

    def parts(self, inputs: np.ndarray) -> dict[str, Callable[[], object]]:
        """Return `copy_in`, `execute` and `copy_out`, to be timed one by one, and `call`, all of them."""


def calls_in_turn(run: Run, inputs: np.ndarray) -> Callable[[], object]:
    """Return a call to be timed: it asks about one input after the other, at batch 1, in the file's form."""
    singles = [np.ascontiguousarray(single[None]) for single in inputs]
    if isinstance(run, Fed):
        return _cycling(run.run, [run.feed(single) for single in singles])
    return _cycling(run, singles)


def _cycling(run: Callable[[T], object], inputs: Sequence[T]) -> Callable[[], object]:
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(inputs)
        return run(inputs[position])

    return call
