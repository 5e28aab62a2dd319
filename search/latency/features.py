"""Features for latency prediction: the operations of one traced forward pass as run on the device.

Nothing here knows a search space. Operations are described by kind and kernel, by their number, by the amount they
compute and by the memory they read and write. The longest chain of operations is described too, since branches may
run side by side.
"""

from collections import defaultdict
from typing import Literal

from edgestill.pipeline.networks.trace import Operation, Trace

# Subset of PyTorch's operations that the device executes. Converters drop operations without a reader, most fold those
# independent of the input, and a device may have been measured layer by layer, dead layers included.
Runs = Literal["input_fed", "needed", "needed_or_weighted", "executed"]
RUNS: tuple[Runs, ...] = ("needed", "input_fed", "needed_or_weighted", "executed")

_WEIGHTED = ("conv", "depthwise", "linear")


def operation_features(trace: Trace, runs: Runs) -> dict[str, float]:
    """Return feature -> value: millions of multiply-accumulates, millions of bytes, and counts."""
    kept = [operation for operation, runs_ in zip(trace.operations, _running(trace, runs), strict=True) if runs_]
    features: defaultdict[str, float] = defaultdict(float)
    for operation in kept:
        if operation.kind == "fill":
            continue
        group = f"{operation.kind}{operation.kernel or ''}"
        features[f"{group} count"] += 1
        features[f"{group} bytes"] += _moved(trace, operation) / 1e6
        if operation.macs:
            features[f"{group} macs"] += operation.macs / 1e6
            features[f"{group} weights"] += _weights(trace, operation) / 1e6
    features["path count"] = _longest(kept, [1.0 for _ in kept])
    features["path macs"] = _longest(kept, [operation.macs / 1e6 for operation in kept])
    features["path bytes"] = _longest(kept, [_moved(trace, operation) / 1e6 for operation in kept])
    return dict(features)


def _running(trace: Trace, runs: Runs) -> list[bool]:
    if runs == "executed":
        return [True] * len(trace.operations)
    needed, fed = trace.needed(), trace.fed()
    output_is_fed = any(fed[i] and trace.output in o.writes for i, o in enumerate(trace.operations))
    if runs == "input_fed":
        return [a and b for a, b in zip(needed, fed, strict=True)]
    alive = [a and output_is_fed for a in needed]
    return alive if runs == "needed" else _with_weighted(trace, alive, fed)


def _with_weighted(trace: Trace, alive: list[bool], fed: list[bool]) -> list[bool]:
    """Add the dead branches ending in a layer with weights, normalised or not.

    If a space multiplies a branch by zero instead of leaving it out, a converter folds the zero into the last layer's
    weights and runs the branch (seen on a Raspberry Pi). It drops a branch with another end.
    """
    alive = list(alive)
    made_by = {value: i for i, operation in enumerate(trace.operations) for value in operation.writes}
    read = {value for operation in trace.operations for value in operation.reads}
    for i, operation in enumerate(trace.operations):
        if alive[i] or not fed[i] or not read.isdisjoint(operation.writes):
            continue
        last = operation
        if last.kind == "norm" and last.reads[0] in made_by:
            last = trace.operations[made_by[last.reads[0]]]
        if last.kind not in _WEIGHTED:
            continue
        branch = [i]
        while branch:
            position = branch.pop()
            if not alive[position]:
                alive[position] = True
                branch.extend(made_by[v] for v in trace.operations[position].reads if v in made_by)
    return alive


def _longest(operations: list[Operation], costs: list[float]) -> float:
    reached: dict[int, float] = {}
    longest = 0.0
    for operation, cost in zip(operations, costs, strict=True):
        total = cost + max((reached.get(value, 0.0) for value in operation.reads), default=0.0)
        longest = max(longest, total)
        for value in operation.writes:
            reached[value] = total
    return longest


def _moved(trace: Trace, operation: Operation) -> int:
    return sum(trace.values[v].bytes for v in (*operation.reads, *operation.writes) if not trace.values[v].is_weight)


def _weights(trace: Trace, operation: Operation) -> int:
    return sum(trace.values[v].bytes for v in operation.reads if trace.values[v].is_weight)
