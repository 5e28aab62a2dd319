"""Costs of a space's members: each figure is counted once, the dear ones only if the budget limits them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from edgestill.pipeline.errors import TargetError, UserError
from edgestill.pipeline.networks.activation_memory import peak_activation_bytes
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.network import uninitialised
from edgestill.pipeline.networks.trace import Trace
from edgestill.pipeline.task import Task
from edgestill.search.budget import Budget
from edgestill.search.latency.learn import LatencyLearner
from edgestill.search.latency.model import trace_student
from edgestill.search.result import Failure
from edgestill.search.scoring.cost_table import Apart, Shipped
from edgestill.search.scoring.outcome import failure
from edgestill.search.space import Architecture, SearchSpace


class Latency(NamedTuple):
    latency_ms: float
    error: float | None  # relative error of a prediction; None: measured


class LatencySource(NamedTuple):
    """Source of candidates' latencies; the flow makes it, since measuring needs an export."""

    find: Callable[[Architecture, Trace], Latency]
    measure: Callable[[Architecture], float] | None  # on this machine; None if the target is another
    is_measured: bool  # `find` measures too, and so takes seconds
    learns: bool = False  # of what is measured; the others' latencies are predicted then


class HardwareCosts:
    """Costs of a space's members, each figure found once.

    Parameters and FLOPs are always counted. Size, peak memory and latency are counted only if the budget limits them,
    the cheap ones first, and not for a member above a cheaper limit. A member without a latency has failed and counts
    as infeasible.

    Args:
        counts: returns parameters and FLOPs.
        shipped: maps a student to its shipped network, subject to the size limit; None: the student itself.
        apart: wraps a function of an architecture so that it runs in a process of its own.
        known, record: the journal of an interrupted search; latencies in it are not measured again.
    """

    def __init__(
        self,
        counts: Callable[[Architecture], Cost],
        space: SearchSpace,
        task: Task,
        budget: Budget,
        latency: LatencySource | None = None,
        *,
        shipped: Shipped | None = None,
        apart: Apart = lambda function: function,
        known: Sequence[Mapping[str, Any]] = (),
        record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    ) -> None:
        self._counts, self._space = counts, space
        self._budget, self._latency, self._record = budget, latency, record
        wants_figures = budget.max_size_bytes is not None or budget.max_peak_activation_bytes is not None
        wants_latency = budget.max_latency_ms is not None and latency is not None
        self._wants_trace, self._wants_latency = wants_figures or wants_latency, wants_latency
        learns = latency is not None and latency.learns and budget.max_latency_ms is not None
        self.learner = LatencyLearner(budget.max_latency_ms or 0.0) if learns else None
        self._traced = apart(functools.partial(_traced, space, task, shipped, wants_figures))
        self._known: dict[str, Cost] = {}
        self._journal = {entry["architecture"]: entry for entry in known if entry.get("scorer") == "latency"}
        self.failures: list[Failure] = []

    def __call__(self, architecture: Architecture) -> Cost:
        key = architecture.key
        if key not in self._known:
            self._known[key] = self._count(architecture)
        return self._known[key]

    def _count(self, architecture: Architecture) -> Cost:
        budget, cost = self._budget, self._counts(architecture)
        if not self._wants_trace or budget.exceeded(cost):
            return cost
        figures, trace = self._traced(architecture)
        cost = cost.model_copy(update=figures)
        if not self._wants_latency or budget.exceeded(cost):
            return cost
        found = self._predicted(trace) or self._find(architecture, trace)
        if found is None:
            return cost
        return cost.model_copy(update={"latency_ms": found.latency_ms, "latency_error": found.error})

    def _predicted(self, trace: Trace) -> Latency | None:
        """Return what the model that learns is sure of."""
        found = None if self.learner is None else self.learner(trace)
        return None if found is None else Latency(*found)

    def _find(self, architecture: Architecture, trace: Trace) -> Latency | None:
        assert self._latency is not None
        text = self._space.format(architecture)
        entry = self._journal.get(text)
        if entry is None:
            entry = {"scorer": "latency", "architecture": text}
            try:
                found = self._latency.find(architecture, trace)
                entry = {**entry, "latency_ms": found.latency_ms, "error": found.error}
            except (UserError, TargetError):  # the device is at fault, not the student
                raise
            except Exception as error:
                entry = {**entry, **failure(error)}
            self._journal[text] = entry
            if self._latency.is_measured:  # a prediction is cheap to make again
                self._record(entry)
        if "failure" in entry:
            failed = Failure(scorer="latency", architecture=text, type=entry["type"], reason=entry["failure"])
            self.failures.append(failed)
            return None
        if self.learner is not None:
            self.learner.learn(trace, entry["latency_ms"])
        return Latency(entry["latency_ms"], entry["error"])


def _traced(
    space: SearchSpace, task: Task, shipped: Shipped | None, wants_figures: bool, architecture: Architecture
) -> tuple[dict[str, int], Trace]:
    """Return a member's size and peak memory, if wanted, and its trace."""
    trace = trace_student(space, architecture, task)
    if not wants_figures:
        return {}, trace
    with uninitialised():
        network: nn.Module = space.build(architecture, task)
        network = network if shipped is None else shipped(network)
    return {"size_bytes": size_bound(network, trace), "peak_activation_bytes": peak_activation_bytes(trace)}, trace


_FILE_BYTES = 4096  # the graph's head, its inputs and outputs
_OPERATION_BYTES = 256  # a node with its names, attributes and shapes; exports of the spaces take up to 135
_ATTENTION_BYTES = 4096  # one operation in the trace is some twenty nodes in the file


def size_bound(network: nn.Module, trace: Trace) -> int:
    """Upper bound on the size of the student's fp32 ONNX file, without exporting it.

    Four bytes for each element of the parameters and buffers, plus an allowance for the graph. Real exports stay
    below it.
    """
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    attention = sum(operation.kind == "attention" for operation in trace.operations)
    graph = _FILE_BYTES + _OPERATION_BYTES * len(trace.operations) + _ATTENTION_BYTES * attention
    return 4 * sum(tensor.numel() for tensor in tensors) + graph
