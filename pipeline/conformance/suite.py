"""A check is a function of a plug-in: its name is a claim, and it raises an error with a sentence if that is false."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from edgestill.pipeline.errors import first_line
from edgestill.pipeline.frozen import first_problem

Check = Callable[[Any], None]


class ConformanceError(AssertionError):
    """Claim that a plug-in does not keep, as a sentence."""


class NotHereError(Exception):
    """Reason why a check cannot be made on this machine, as a sentence."""


class Outcome(NamedTuple):
    claim: str
    failure: str | None = None
    skipped: str | None = None


def require(claim: object, otherwise: str) -> None:
    """Raise ConformanceError with the sentence `otherwise` unless the claim is true."""
    if not claim:
        raise ConformanceError(otherwise)


def outcomes(checks: Iterable[Check], subject: Any) -> Iterator[Outcome]:
    """Make each check in turn; any error is a failure."""
    for check in checks:
        claim = check.__name__.replace("_", " ")
        try:
            check(subject)
        except NotHereError as reason:
            yield Outcome(claim, skipped=str(reason))
        except ConformanceError as error:
            yield Outcome(claim, str(error))
        except ValidationError as error:
            yield Outcome(claim, first_problem(error))
        except Exception as error:
            yield Outcome(claim, f"{type(error).__name__}: {first_line(error)}")
        else:
            yield Outcome(claim)
