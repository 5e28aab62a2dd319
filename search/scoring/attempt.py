"""Outcome of one candidate: its scores, or the type and reason of its failure instead of an exception."""

from collections.abc import Callable

from edgestill.pipeline.device import on_threads
from edgestill.pipeline.errors import CandidateError, UserError
from edgestill.pipeline.networks.cost import Cost
from edgestill.search.scoring.outcome import Outcome, Scores, failure
from edgestill.search.space import Architecture


def attempt(evaluator: Callable[[Architecture], Scores], scorer: str, architecture: Architecture) -> Outcome:
    """Score on one thread, so that the result has the same bits in any process.

    Returns:
        {scores, std, seconds} or {failure, type}

    Raises:
        UserError: a fault common to all candidates.
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
    """Wrap a cost function: an error for a candidate is reported once, and raised as CandidateError every time."""
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
