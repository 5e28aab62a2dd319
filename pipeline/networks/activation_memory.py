"""Peak activation memory of one image, from a trace."""

from edgestill.pipeline.networks.trace import Trace


def peak_activation_bytes(trace: Trace) -> int:
    """Peak memory in bytes of the tensors computed from one image.

    The operations that the output needs run one after the other in the order of the trace; nothing is fused. An
    operation's inputs and outputs exist while it runs. A tensor is freed after the last operation that reads it; the
    output is kept to the end. The network's input counts like other tensors, from the start. A view shares the memory
    of its base, and an in-place operation writes into that of its input. Weights are not counted, nor is the scratch
    memory inside an operation. A runtime that fuses layers stays below this.
    """
    steps = [operation for operation, needed in zip(trace.operations, trace.needed(), strict=True) if needed]
    first: dict[int, int] = {trace.values[trace.input].memory: 0}
    last: dict[int, int] = {trace.values[trace.input].memory: 0}
    size: dict[int, int] = {trace.values[trace.input].memory: trace.values[trace.input].bytes}
    for position, step in enumerate(steps):
        for number in (*step.reads, *step.writes):
            value = trace.values[number]
            if not value.is_weight:
                first.setdefault(value.memory, position)
                last[value.memory] = position
                size[value.memory] = value.bytes
    output = trace.values[trace.output].memory
    if output in last:
        last[output] = len(steps)
    changes = [0] * (len(steps) + 2)
    for memory, bytes_ in size.items():
        changes[first[memory]] += bytes_
        changes[last[memory] + 1] -= bytes_
    peak = now = 0
    for change in changes:
        now += change
        peak = max(peak, now)
    return peak
