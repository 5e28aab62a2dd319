"""Inputs that a benchmark's formats answer."""

from pathlib import Path

import numpy as np

from edgestill.pipeline.data.datasets.npz_sizes import ZIP_ERRORS
from edgestill.pipeline.errors import ConfigError, first_line
from edgestill.pipeline.task import Task

_COUNT = 256  # of random inputs
_MOST = 2048  # of a file's


def inputs_of(task: Task, path: Path | None) -> tuple[np.ndarray, str]:
    """Return the inputs, and a description in words: of a file, or random ones without one.

    Raises:
        ConfigError: the file holds something else than inputs of the task.
    """
    kind = task.inputs
    if path is None:
        return kind.probes(_COUNT), f"{_COUNT} random inputs"
    found = load_examples(path)
    wanted = f"{kind.dtype} [N, {', '.join(map(str, kind.shape))}]"
    if found.shape[1:] != kind.shape:
        raise ConfigError([f"--inputs {path} holds {list(found.shape)}; expected {wanted}"])
    found = np.ascontiguousarray(found[:_MOST])
    if found.dtype != kind.dtype or not kind.is_within(found):
        raise ConfigError([f"--inputs {path}: expected {wanted}, {kind.values} within {kind.limits}"])
    return found, f"{len(found):,} inputs of {path.name}"


def load_examples(path: Path) -> np.ndarray:
    """Return the array of a file, of one example at least; it is mapped, so that it cannot declare more than it has.

    Raises:
        ConfigError: the file holds none.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not there, or no plain file")
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*ZIP_ERRORS, RecursionError, MemoryError) as error:
        raise ConfigError([f"--inputs {path} is no .npy file of numbers: {first_line(error)}"]) from None
    if not isinstance(found, np.ndarray) or found.ndim < 2 or 0 in found.shape:
        raise ConfigError([f"--inputs {path} holds {list(getattr(found, 'shape', ()))}; expected examples, [N, …]"])
    return found
