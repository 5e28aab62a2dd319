"""Failing charts: a page goes without them, and says so."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec

from markupsafe import Markup

from edgestill.pipeline.nicety import nicety

P = ParamSpec("P")
_CAUTIONS: ContextVar[list[str] | None] = ContextVar("cautions", default=None)


@contextlib.contextmanager
def forgiving(cautions: list[str]) -> Iterator[None]:
    """Replace each failing chart by a sentence, added to `cautions` too; outside this context its error passes."""
    token = _CAUTIONS.set(cautions)
    try:
        yield
    finally:
        _CAUTIONS.reset(token)


def chart(drawn: Callable[P, Markup]) -> Callable[P, Markup]:
    """Decorate a chart a page can do without: inside `forgiving`, its failure becomes a sentence."""

    @functools.wraps(drawn)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Markup:
        cautions, failed = _CAUTIONS.get(), list[str]()
        if cautions is None:
            return drawn(*args, **kwargs)
        with nicety(f"the chart {drawn.__name__.replace('_', ' ')} could not be drawn", failed):
            return drawn(*args, **kwargs)
        cautions.extend(caution for caution in failed if caution not in cautions)
        return Markup("<p>{}</p>").format(failed[0])

    return draw
