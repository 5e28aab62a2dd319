"""A method's head ships with the student, so the search holds the budget against the student with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from distill.config import DistillConfig
from distill.methods import METHODS, MethodConfig
from distill.recipe import make_recipe
from pipeline.errors import BudgetError


def heads(config: DistillConfig) -> tuple[MethodConfig, ...]:
    """The configured methods that change what ships: none, or one."""
    return tuple(method for method in config.methods if "head" in METHODS[method.name].fills)


def what_ships(config: DistillConfig) -> Callable[[nn.Module], nn.Module] | None:
    """From a student to what will ship of it; None where that is the student itself."""
    return make_recipe(config.methods).deployable if heads(config) else None


@contextmanager
def telling_of_heads(config: DistillConfig) -> Iterator[None]:
    """Adds to a refused budget that a head is counted in it, and the way out."""
    try:
        yield
    except BudgetError as error:
        if not heads(config):
            raise
        [name] = [method.name for method in heads(config)]
        raise BudgetError(
            f"{error}; the head that method {name!r} adds to the student is counted in it: set fewer subclasses, or "
            f"leave {name!r} out"
        ) from error
