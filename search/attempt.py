"""One candidate, one outcome: its scores, or the type and reason of its failure; never an exception of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pipeline.cost import Cost
from pipeline.errors import CandidateError, UserError
from search.evaluate import Evaluator
from search.outcome import Outcome, failure
from search.space import Architecture


def attempt(evaluator: Evaluator, scorer: str, architecture: Architecture) -> Outcome:
    """Score on one thread, so that the result has the same bits in any process.

    Returns:
        {scores, std, seconds} or {failure, type}

    Raises:
        UserError: something that is wrong for every candidate.
    """
    try:
        with on_threads(1):
            scores = evaluator(architecture)
    except UserError:
        raise
    except Exception as error:
        return failure(error)
    if scorer not in scores.values:
        return failure(CandidateError(f"no finite {scorer} score", "not_finite"))
    return {"scores": scores.values, "std": scores.std, "seconds": round(scores.seconds, 4)}


def guarded(
    cost: Callable[[Architecture], Cost], report: Callable[[Architecture, Outcome], None]
) -> Callable[[Architecture], Cost]:
    """The same costs; whatever goes wrong with a candidate's is reported once and is a CandidateError every time."""
    failed: dict[str, Outcome] = {}

    def costs(architecture: Architecture) -> Cost:
        if architecture.key not in failed:
            try:
                return cost(architecture)
            except UserError:
                raise
            except Exception as error:
                failed[architecture.key] = failure(error)
                report(architecture, failed[architecture.key])
        known = failed[architecture.key]
        raise CandidateError(known["failure"], known["type"])

    return costs


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on so many; on one, sums have one order whatever the machine, and processes make up for it."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(threads)
