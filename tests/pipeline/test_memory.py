"""The trace of a forward pass, and the peak of activation memory by closed form and by brute force."""

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.networks.activation_memory import peak_activation_bytes
from edgestill.pipeline.networks.trace import Trace, trace_network
from edgestill.pipeline.task import Task
from edgestill.search.space import SearchSpace

PIXELS = 4 * 8 * 8  # bytes of a float32 channel of the examples


def trace_of(network: nn.Module, channels: int = 2) -> Trace:
    return trace_network(lambda: network, torch.zeros(1, channels, 8, 8))


def names(trace: Trace, flags: list[bool]) -> list[str]:
    return [operation.name for operation, flag in zip(trace.operations, flags, strict=True) if flag]


class Branches(nn.Module):
    """A convolution that is used, one that is not, and a branch that sees zeros only."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.blind = (nn.Conv2d(2, 3, 3, padding=1, bias=False) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        self.unused(inputs)
        return F.relu(self.used(inputs)) + self.blind(torch.zeros_like(inputs))


def test_the_output_does_not_need_what_leads_nowhere() -> None:
    trace = trace_of(Branches())
    assert [o.kind for o in trace.operations].count("conv") == 3
    assert names(trace, trace.needed()).count("convolution") == 2


def test_what_sees_only_zeros_does_not_depend_on_the_input() -> None:
    trace = trace_of(Branches())
    assert names(trace, trace.fed()).count("convolution") == 2
    both = [a and b for a, b in zip(trace.needed(), trace.fed(), strict=True)]
    assert names(trace, both) == ["convolution", "relu", "add"]


def test_multiply_accumulates_agree_with_the_closed_form() -> None:
    network = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(96, 5))
    convolution, linear = trace_of(network).operations
    assert (convolution.macs, convolution.kind, convolution.kernel) == (6 * 4 * 4 * 2 * 9, "conv", 3)
    assert (linear.macs, linear.kind) == (96 * 5, "linear")
    transposed = trace_of(nn.ConvTranspose2d(2, 3, 2, stride=2)).operations[0]
    assert transposed.macs == 2 * 8 * 8 * 3 * 4
    depthwise = trace_of(nn.Conv2d(2, 2, 5, groups=2)).operations[0]
    assert (depthwise.kind, depthwise.kernel) == ("depthwise", 5)


@pytest.mark.parametrize(("padding", "dilation", "stride"), [(0, 1, 1), (2, 2, 1), (1, 1, 2), ("same", 1, 1)])
def test_a_convolution_that_is_not_computed_answers_with_pytorchs_shape(
    padding: int | str, dilation: int, stride: int
) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=padding, dilation=dilation, stride=stride)
    trace = trace_of(layer)
    assert trace.values[trace.output].bytes == 4 * layer(torch.zeros(1, 2, 8, 8)).numel()


def test_the_peak_of_a_chain_is_its_largest_pair_of_neighbours() -> None:
    chain = nn.Sequential(nn.Conv2d(2, 5, 1), nn.Conv2d(5, 7, 1), nn.Conv2d(7, 1, 1))
    assert peak_activation_bytes(trace_of(chain)) == (5 + 7) * PIXELS


def test_a_shortcut_keeps_its_source_alive() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(2, 9, 1), nn.Conv2d(9, 2, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = inputs + self.narrow(self.wide(inputs))
            return result

    assert peak_activation_bytes(trace_of(Residual())) == (2 + 9 + 2) * PIXELS


def test_an_operation_in_place_takes_no_memory_of_its_own() -> None:
    def peak(inplace: bool) -> int:
        return peak_activation_bytes(trace_of(nn.Sequential(nn.Conv2d(2, 5, 1), nn.ReLU(inplace))))

    assert peak(inplace=True) == (2 + 5) * PIXELS
    assert peak(inplace=False) == (5 + 5) * PIXELS


def test_a_view_keeps_the_whole_of_what_it_shows_alive() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(2, 6, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            half = self.first(inputs)[:, :3]
            result: Tensor = half + self.third(self.second(half))
            return result

    assert peak_activation_bytes(trace_of(Half())) == (6 + 4 + 3) * PIXELS


def test_operations_that_lead_nowhere_take_no_memory() -> None:
    class Wasteful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.useful, self.wasted = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 1000, 1)

        def forward(self, inputs: Tensor) -> Tensor:
            self.wasted(inputs)
            result: Tensor = self.useful(inputs)
            return result

    assert peak_activation_bytes(trace_of(Wasteful())) == (2 + 3) * PIXELS


@pytest.mark.parametrize("name", ["resnet", "nb201"])
def test_the_peak_equals_a_simulation_that_allocates_and_frees(
    name: str, small_space: Callable[[str], SearchSpace], make_task: Callable[..., Task]
) -> None:
    space, task = small_space(name), make_task()
    for seed in range(6):
        architecture = space.sample(random.Random(seed))
        trace = trace_network(lambda a=architecture: space.build(a, task), torch.zeros(1, *task.input_shape))
        assert peak_activation_bytes(trace) == _simulated(trace)


def _simulated(trace: Trace) -> int:
    """Run the needed operations, looking ahead at every step for what is still to be read."""
    steps = [o for o, needed in zip(trace.operations, trace.needed(), strict=True) if needed]
    memory = lambda value: trace.values[value].memory  # noqa: E731
    allocated = {memory(trace.input): trace.values[trace.input].bytes}
    peak = sum(allocated.values())
    for position, step in enumerate(steps):
        for value in step.writes:
            allocated[memory(value)] = trace.values[value].bytes
        peak = max(peak, sum(allocated.values()))
        wanted = {memory(v) for later in steps[position + 1 :] for v in later.reads} | {memory(trace.output)}
        allocated = {place: size for place, size in allocated.items() if place in wanted}
    return peak
