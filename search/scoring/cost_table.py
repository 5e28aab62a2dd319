"""Parameters and FLOPs of a space's members, counted once each."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, SearchSpace

Shipped = Callable[[nn.Module], nn.Module]  # maps a student to its shipped network
Apart = Callable[[Callable[[Architecture], Any]], Callable[[Architecture], Any]]


class CostTable:
    """Parameters and FLOPs of a space's members, counted once each.

    Args:
        shipped: maps a student to its shipped network, for counting; None: the student itself.
        apart: wraps a function of an architecture so that it runs in a process of its own.

    Raises:
        ConfigError: the space's students take other inputs than the task's.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        shipped: Shipped | None = None,
        apart: Apart = lambda function: function,
    ) -> None:
        space.require(task)
        self._count = apart(functools.partial(_count, space, task, shipped))
        self._known: dict[str, Cost] = {}

    def __call__(self, architecture: Architecture) -> Cost:
        key = architecture.key
        if key not in self._known:
            self._known[key] = self._count(architecture)
        return self._known[key]


def _count(space: SearchSpace, task: Task, shipped: Shipped | None, architecture: Architecture) -> Cost:
    def build() -> nn.Module:
        student = space.build(architecture, task)
        return student if shipped is None else shipped(student)

    return measure_cost(build, task.input_shape, task.input_dtype)
