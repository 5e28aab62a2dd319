"""File of a federation's answers to its pool, from Flower's server to the run that trains the student on them."""

import io
from pathlib import Path

import numpy as np
import torch

from edgestill.distill.federation.strategies.base import Answers
from edgestill.pipeline.data.datasets.npz_sizes import require_plausible
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.teacher_cache import split_digest
from edgestill.pipeline.errors import DataError, first_line

_ARRAYS = ("pool", "index", "logits")


def answers_bytes(answers: Answers, pool_digest: str) -> bytes:
    """Content of an .npz file: the digest of the pool, index [S] and logits [S, K]."""
    out = io.BytesIO()
    np.savez(out, pool=np.array(pool_digest), index=answers.index.numpy(), logits=answers.logits.numpy())
    return out.getvalue()


def read_answers(path: Path, pool: ImageSplit, classes: int) -> Answers:
    """Read the answers to a pool.

    Raises:
        DataError: the file cannot be read, unpacks to too much, or its answers are to another pool, to other classes,
            to examples that the pool does not have, or twice to one.
    """
    try:
        require_plausible(path, _ARRAYS)
        with np.load(path, allow_pickle=False) as held:
            digest, index, logits = str(held["pool"]), held["index"], held["logits"]
    except DataError:
        raise
    except Exception as error:  # it may be any file
        raise DataError(f"{path} holds no answers of a federation ({first_line(error)})") from None
    if digest != split_digest(pool):
        raise DataError(f"{path} answers another public pool than this run's; the examples and their order must agree")
    if index.ndim != 1 or index.dtype.kind not in "iu" or logits.shape != (len(index), classes):
        raise DataError(
            f"{path} holds answers of shape {list(logits.shape)} to examples of shape {list(index.shape)} "
            f"({index.dtype}); {classes} finite logits an example are needed"
        )
    if logits.dtype.kind != "f" or not np.isfinite(logits).all():
        raise DataError(f"{path} holds answers that are not finite; {classes} finite logits an example are needed")
    if len(index) and not 0 <= index.min() <= index.max() < len(pool):
        raise DataError(f"{path} answers examples that the pool of {len(pool):,} does not have")
    if len(np.unique(index)) < len(index):
        raise DataError(f"{path} answers an example twice")
    return Answers(torch.from_numpy(index).long(), torch.from_numpy(logits).float())
