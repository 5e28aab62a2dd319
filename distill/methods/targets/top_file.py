"""A teacher's likeliest classes for every training example, in a file: all that the student will know of it."""

# N examples, B batch, K classes, M likeliest classes

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgestill.distill.methods.base import Context
from edgestill.pipeline.data.teacher_cache import content_key
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.networks.network import evaluating, logits_at
from edgestill.pipeline.runs.sealed import read_sealed, write_sealed

_AT_ONCE = 512  # examples
_ROW = np.dtype([("class", "<i4"), ("probability", "<f4")])


class TopFile(NamedTuple):
    """Probabilities of the likeliest classes, largest first, and their numbers."""

    probabilities: Tensor  # [N, M] float32
    classes: Tensor  # [N, M] int64

    @classmethod
    def of(
        cls, context: Context, probabilities: Callable[[Tensor], Tensor], classes: int, identity: tuple[Any, ...]
    ) -> "TopFile":
        """Read the file of a teacher and its training examples, or ask the teacher once and write it.

        Args:
            probabilities: of logits [B, K].
            identity: all but teacher and examples that decides them.
        """
        path, key = None, ""
        if context.outputs_folder is not None:
            key = content_key(context.teacher, context.train, "top", classes, list(identity), context.device.type)
            path = context.outputs_folder / f"{key}.top"
        found = None if path is None else _read(path, key, context.train.answers)
        if found is None:
            found = _asked(context, probabilities, classes)
            if path is not None:
                with contextlib.suppress(OSError):  # no room, or no right to write
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_sealed(path, _bytes(found), key)
        return cls(*(part.to(context.device) for part in found))

    def spread(self, index: Tensor, classes: int) -> Tensor:
        """Return the probabilities of chosen examples, [B, K]; what is left is even over the other classes."""
        p, places = self.probabilities[index], self.classes[index]
        others = classes - p.shape[1]
        rest = (1 - p.sum(1, keepdim=True)).clamp_min(0) / max(1, others)
        return rest.expand(len(index), classes).scatter(1, places, p)


def _asked(context: Context, probabilities: Callable[[Tensor], Tensor], classes: int) -> TopFile:
    parts = []
    with evaluating(context.teacher), torch.no_grad():
        for batch in context.train.batches(_AT_ONCE, context.device):
            p = probabilities(logits_at(context.teacher, batch.inputs, batch.rows).float())
            best = p.sort(dim=1, descending=True, stable=True)
            parts.append((best.values[:, :classes].cpu(), best.indices[:, :classes].cpu()))
    return TopFile(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _bytes(found: TopFile) -> bytes:
    rows = np.empty(found.classes.shape, _ROW)
    rows["class"], rows["probability"] = found.classes.numpy(), found.probabilities.numpy()
    return rows.tobytes()


def _read(path: Path, key: str, count: int) -> TopFile | None:
    """Read a file; None where there is none, or a damaged one."""
    with contextlib.suppress(RunDirError, ValueError):
        data = read_sealed(path, key)
        if data is not None:
            rows = np.frombuffer(data, _ROW).reshape(count, -1)
            return TopFile(
                torch.from_numpy(rows["probability"].astype(np.float32)),
                torch.from_numpy(rows["class"].astype(np.int64)),
            )
    return None
