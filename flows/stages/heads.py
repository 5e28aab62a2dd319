"""Heads of methods: they ship with the student, so the search counts them against the budget."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods import METHODS, MethodConfig
from edgestill.distill.recipe import make_recipe
from edgestill.pipeline.errors import BudgetError


def heads(config: DistillConfig) -> tuple[MethodConfig, ...]:
    """The configured methods with a head on the shipped student: none, or one."""
    return tuple(method for method in config.methods if "head" in METHODS[method.name].fills)


def what_ships(config: DistillConfig) -> Callable[[nn.Module], nn.Module] | None:
    """Function from a student to its shipped form; None if the student ships as it is."""
    return make_recipe(config.methods).deployable if heads(config) else None


@contextmanager
def telling_of_heads(config: DistillConfig) -> Iterator[None]:
    """Explain in a budget error that the method's head counts, and how to shrink it."""
    try:
        yield
    except BudgetError as error:
        if not heads(config):
            raise
        [name] = [method.name for method in heads(config)]
        smaller = METHODS[name].to_shrink
        raise BudgetError(
            f"{error}; the head that method {name!r} adds to the student is counted in it: "
            f"{f'{smaller}, or ' if smaller else ''}leave {name!r} out"
        ) from error
