"""Calibration of the ensemble: scales from random, unlabelled architectures of the space, named by content."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import FailedError
from edgestill.pipeline.frozen import derive_seed, digest
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.scorers import Calibration
from edgestill.search.scoring.outcome import Caught, Outcome
from edgestill.search.space import Architecture, SearchSpace

ARCHITECTURES = 64

Each = Callable[[Callable[[Architecture], Any], Sequence[Architecture]], Iterator[Outcome]]
Calibrated = Callable[[str, Callable[[], Calibration]], Calibration]  # (content name, function that computes it)


class Drawing(Protocol):
    """Interface of the parts' `Evaluator`."""

    @property
    def content(self) -> str: ...
    def portable(self) -> "Drawing": ...
    @property
    def cost(self) -> Callable[[Architecture], Cost]: ...
    def drawn(self, architecture: Architecture) -> dict[str, list[float]]: ...


def each_here(function: Callable[[Architecture], Any], architectures: Sequence[Architecture]) -> Iterator[Outcome]:
    """Yield a function's outcome for each architecture, computed in this process."""
    return map(Caught(function), architectures)


def calibrate(
    space: SearchSpace, parts: Drawing, seed: int, calibrated: Calibrated, each: Each = each_here
) -> Calibration:
    """Return the parts' scales over 64 random members of the space, whatever the budget; over all of a smaller one.

    Raises:
        FailedError: none of the members could be scored.
    """
    rng = random.Random(derive_seed(seed, "calibration"))
    architectures = space.sample_different(ARCHITECTURES, rng)
    members = [(architecture.key, parts.cost(architecture)) for architecture in architectures]  # costs reveal widths
    key = digest("edgestill.calibration/1", parts.content, members)

    def compute() -> Calibration:
        columns: dict[str, list[float]] = {}
        reasons = set()
        for outcome in each(parts.portable().drawn, architectures):
            if "failure" in outcome:  # a failure has no scores, and would recur in the search
                reasons.add(outcome["failure"])
                continue
            for name, (score, *_) in outcome["value"].items():
                columns.setdefault(name, []).append(score)
        if not columns:
            reason = "; ".join(sorted(reasons)[:3])
            raise FailedError(
                f"none of {len(architectures)} random students of space {space.name!r} has scores: {reason}"
            )
        return Calibration.of(columns)

    return calibrated(key, compute)


def content_of(batch: Batch, *rest: object) -> str:
    """Hash of all inputs to a score besides the architecture: the batch and `rest`."""
    tensors = hashlib.sha256()
    for tensor in batch[:3]:
        tensors.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest(tensors.hexdigest(), *rest)
