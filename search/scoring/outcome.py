"""Outcome of one candidate: the values asked for, or the type and reason of its failure."""

from collections.abc import Callable
from typing import Any

import torch

from edgestill.pipeline.errors import CandidateError, ExportError, UserError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.search.space import Architecture

Outcome = dict[str, Any]  # {failure, type}, or the values asked for; journals keep it


class Scores(Frozen):
    """Scores of a candidate, each the mean over draws of the weights."""

    values: dict[str, float]  # scorer -> score; a scorer that had none (NaN, infinite) is left out
    std: dict[str, float]  # over draws; 0 for one draw
    seconds: float


class Caught:
    """Wrapper of a function of an architecture: returns {"value": its result}, or its failure.

    Raises:
        UserError: a fault common to all candidates.
    """

    def __init__(self, function: Callable[[Architecture], Any]) -> None:
        self.function = function

    def __call__(self, architecture: Architecture) -> Outcome:
        try:
            return {"value": self.function(architecture)}
        except UserError:
            raise
        except Exception as error:
            return failure(error)


def value(outcome: Outcome) -> Any:
    """Return the result of a `Caught` function.

    Raises:
        CandidateError: the function failed.
    """
    if "failure" in outcome:
        raise CandidateError(outcome["failure"], outcome["type"])
    return outcome["value"]


def failure(error: Exception) -> Outcome:
    """Return an exception as an outcome."""
    return {"failure": _reason(error), "type": failure_type(error)}


def failure_type(error: BaseException) -> str:
    """Return `out_of_memory`, `export`, the type of a CandidateError, or `error:` and the exception's name."""
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


def _reason(error: Exception) -> str:
    text = first_line(error)
    return text if isinstance(error, CandidateError) else f"{type(error).__name__}: {text}".removesuffix(": ")
