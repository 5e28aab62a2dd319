"""One candidate, one outcome: its scores, or the type and reason of its failure; never an exception of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.cost import Cost
from pipeline.errors import CandidateError, ExportError, UserError, first_line
from search.evaluate import Evaluator
from search.space import Architecture

Outcome = dict[str, Any]  # {scores, std, seconds} or {failure, type}; what a journal keeps of a candidate


def attempt(evaluator: Evaluator, scorer: str, architecture: Architecture) -> Outcome:
    """Score on one thread, so that the result has the same bits in any process.

    Raises:
        UserError: something that is wrong for every candidate.
    """
    try:
        with one_thread():
            scores = evaluator(architecture)
    except UserError:
        raise
    except Exception as error:
        return failure(error)
    if scorer not in scores.values:
        return failure(CandidateError(f"no finite {scorer} score", "not_finite"))
    return {"scores": scores.values, "std": scores.std, "seconds": round(scores.seconds, 4)}


def failure(error: Exception) -> Outcome:
    """The outcome that an exception stands for."""
    return {"failure": _reason(error), "type": failure_type(error)}


def failure_type(error: BaseException) -> str:
    """`out_of_memory`, what a CandidateError says of itself, or `error:` and the exception's name."""
    if isinstance(error, CandidateError):
        if error.type:
            return error.type
        return failure_type(error.__cause__) if error.__cause__ else "error"
    if isinstance(error, ExportError):
        return "export"
    lacks_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if lacks_memory or any(words in str(error) for words in ("can't allocate memory", "out of memory")):
        return "out_of_memory"
    return f"error:{type(error).__name__}"


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
def one_thread() -> Iterator[None]:
    """Sums in one order whatever the machine; processes make up for it."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def _reason(error: Exception) -> str:
    text = first_line(error)
    return text if isinstance(error, CandidateError) else f"{type(error).__name__}: {text}".removesuffix(": ")
