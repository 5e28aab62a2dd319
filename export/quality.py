"""Accuracy of a file, and the same under perturbations of its inputs."""

# N examples, K classes

from collections.abc import Iterator

import numpy as np

from edgestill.export.run import Run
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task

_BATCH = 256


def logits_of(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Compute the logits [N, K] of all inputs, in batches."""
    parts = [run(np.ascontiguousarray(inputs[start : start + _BATCH])) for start in range(0, len(inputs), _BATCH)]
    return np.concatenate(parts)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((logits.argmax(1) == targets).mean())


def perturbed(inputs: np.ndarray, task: Task, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs under each perturbation of their kind, with its name; equal seeds give equal damage."""
    for name, damage in task.inputs.damages.items():
        yield name, damage(inputs, np.random.default_rng(derive_seed(seed, "robustness", name)))
