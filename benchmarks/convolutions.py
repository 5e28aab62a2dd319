"""Are convolutions and their gradients right on this processor? Looks at every shape that the spaces build, and others.

    python benchmarks/convolutions.py [--isa machine AVX2] [--threads 1 2 4] [--architectures 20] [--unguarded]
    python benchmarks/convolutions.py --cost

The shapes are those of networks drawn from each space on inputs of several sizes, and a grid of odd ones: kernels of 1
to 7, strides, groups, depthwise, 1 to 24 channels. Each is computed in both layouts, forward and backward, and compared
with matrix products in float64, by a child process whose heap glibc checks; `--unguarded` leaves out the guard of
pipeline/networks/convolution.py. Exit code 1: something differs by more than 1e-4 of the largest value, or ended its
process.

--cost times training steps of small networks by turns: unguarded, guarded, and with contiguous inputs.
"""

import argparse
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.child import ended, environment, interpreter
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.networks import convolution
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.search.space import SearchSpace
from edgestill.search.spaces import SPACES, named_space
from edgestill.search.spaces.nni_families import FAMILIES

_TOLERANCE = 1e-4
_REPEATS = 3  # an overwritten buffer need not show the first time
_HEAP_CHECKS = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "LD_PRELOAD": "libc_malloc_debug.so.0"}
_SIDES = (8, 28, 32)
_BATCHES = (2, 16)
_MOST_PRODUCTS = 2 * 10**7  # of a shape; float64 is slow, and what is large on 32 pixels is there on 8 too


class Shape(NamedTuple):
    """A two-dimensional convolution, and its input's size."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    channels: int
    outputs: int
    height: int
    width: int
    batch: int

    @property
    def products(self) -> int:
        """Of numbers, in one forward pass at most."""
        return math.prod(
            (*self.kernel, self.channels // self.groups, self.outputs, self.height, self.width, self.batch)
        )


def main() -> int:
    arguments = _arguments()
    if arguments.child:
        return _look(arguments)
    if arguments.cost:
        return _cost()
    shapes = sorted({*_grid(), *_built(arguments.architectures)})
    print(f"{len(shapes)} shapes, torch {torch.__version__}, {_machine()}", flush=True)
    found = False
    for isa, threads in itertools.product(_isas(arguments.isa), arguments.threads):
        start = time.perf_counter()
        bad = list(_bad(shapes, isa, threads, arguments.unguarded))
        found |= bool(bad)
        took = time.perf_counter() - start
        print(f"{isa}, threads {threads}: {len(bad)} of {len(shapes)} shapes are wrong ({took:.0f} s)", flush=True)
        for shape, how in bad:
            print(f"  {_told(shape)}: {how}", flush=True)
    return int(found)


def _isas(asked: Sequence[str]) -> list[str]:
    """AVX2 is the machine itself where it has no more."""
    here = torch.backends.cpu.get_cpu_capability()
    return list(dict.fromkeys(here if isa in ("machine", here) else isa for isa in asked))


def _grid() -> Iterator[Shape]:
    widths = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 16, 17, 24)
    for channels, outputs, side, batch in itertools.product(widths, (1, 3, 8, 16), (7, 8, 16), _BATCHES):
        yield _square(1, 2, 1, channels, outputs, side, batch)
    for kernel, stride, channels, side in itertools.product((1, 3, 5, 7), (1, 2, 3), widths, (7, 16)):
        yield _square(kernel, stride, channels, channels, channels, side, 4)  # depthwise
        yield _square(kernel, stride, 1, channels, 12, side, 4)
    for kernel, stride, (groups, each) in itertools.product((1, 3), (1, 2), ((2, 3), (3, 4), (4, 6), (2, 10))):
        yield _square(kernel, stride, groups, groups * each, groups * 4, 16, 4)


def _square(kernel: int, stride: int, groups: int, channels: int, outputs: int, side: int, batch: int) -> Shape:
    padding = kernel // 2
    pairs = (kernel, kernel), (stride, stride), (padding, padding), (1, 1)
    return Shape(*pairs, groups, channels, outputs, side, side, batch)


def _built(architectures: int) -> Iterator[Shape]:
    """The shapes of networks drawn from each space of images."""
    names = [name for name in SPACES if name != "nni"] + [f"nni:{name}" for name in FAMILIES]
    spaces = [space for space in map(named_space, names) if space.inputs == "image"]
    spaces.append(_narrow())
    rng = random.Random(0)
    for space, side in itertools.product(spaces, _SIDES):
        task = Task(labels=("a", "b", "c"), input_shape=(3, side, side), mean=(0.5,) * 3, std=(0.3,) * 3)
        drawn = 1 if space.name.startswith("nni") else architectures  # NNI has large networks, each of many shapes
        for _ in range(drawn):
            yield from (shape for shape in _shapes_of(space, task, rng) if shape.products <= _MOST_PRODUCTS)


def _narrow() -> SearchSpace:
    kind, space = SPACES["resnet"]
    widths = tuple(range(3, 17))
    made: SearchSpace = space(kind(blocks=((1, 2), (1, 2), (1,)), widths=(widths, widths, widths)))  # type: ignore[call-arg]
    return made


def _shapes_of(space: SearchSpace, task: Task, rng: random.Random) -> Iterator[Shape]:
    try:
        network = space.build(space.sample(rng), task).to("meta")  # nothing is computed
        seen: list[Shape] = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda own, given, _: seen.append(_shape(own, given[0])))
        with torch.no_grad(), evaluating(network), torch.device("meta"):
            network(torch.rand(1, *task.input_shape))
    except (ValueError, RuntimeError, CandidateError):  # such as a space of NNI's that wants larger images
        return
    yield from (shape._replace(batch=batch) for shape in seen for batch in _BATCHES)


def _shape(module: nn.Conv2d, inputs: Tensor) -> Shape:
    pairs: Any = module.kernel_size, module.stride, module.padding, module.dilation
    counts = module.groups, module.in_channels, module.out_channels, *inputs.shape[2:], 0  # some of NNI's are numpy's
    return Shape(*(tuple(map(int, pair)) for pair in pairs), *map(int, counts))


def _bad(shapes: Sequence[Shape], isa: str, threads: int, unguarded: bool) -> Iterator[tuple[Shape, str]]:
    """What is wrong, and how; a child that dies is followed by another, which begins behind the shape it died of."""
    limit = {} if isa == torch.backends.cpu.get_cpu_capability() else {"ONEDNN_MAX_CPU_ISA": isa}
    command = interpreter(__file__, "--child", "--threads", str(threads), *["--unguarded"] * unguarded)
    left = list(shapes)
    while left:
        done = subprocess.run(
            command, input=json.dumps(left), text=True, capture_output=True, env=environment(limit | _HEAP_CHECKS)
        )
        errors = [float(line) for line in done.stdout.split()]
        yield from ((shape, f"off by {e:.1e}") for shape, e in zip(left, errors, strict=False) if not e <= _TOLERANCE)
        left = left[len(errors) :]
        if done.returncode and left:
            yield left.pop(0), f"its process {ended(done.returncode)}"


def _look(arguments: argparse.Namespace) -> int:
    """The child: the largest relative error of each shape that it is given."""
    if arguments.unguarded:
        convolution.is_faulty = lambda: False
    torch.set_num_threads(arguments.threads[0])
    for given in json.load(sys.stdin):
        shape = Shape(*(tuple(value) if isinstance(value, list) else value for value in given))
        print(max(_errors(shape)), flush=True)
    return 0


def _errors(shape: Shape) -> Iterator[float]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape.batch, shape.channels, shape.height, shape.width, generator=generator)
    weight = torch.randn(shape.outputs, shape.channels // shape.groups, *shape.kernel, generator=generator)
    expected = _computed(shape, inputs.double(), weight.double(), _by_products)
    for layout in (torch.channels_last, torch.contiguous_format):
        for _ in range(_REPEATS if layout == torch.channels_last else 1):
            found = _computed(shape, inputs.clone(memory_format=layout), weight, _by_torch)
            for one, other in zip(found, expected, strict=True):
                yield float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))


def _computed(
    shape: Shape, inputs: Tensor, weight: Tensor, convolve: Callable[[Shape, Tensor, Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Output, and the gradients of its weighted sum with respect to inputs and weights."""
    own, other = inputs.detach().requires_grad_(), weight.detach().clone().requires_grad_()
    output = convolve(shape, own, other)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    gradients = torch.autograd.grad(output, (own, other), weights.clone(memory_format=torch.preserve_format))
    return output.detach(), *gradients


def _by_torch(shape: Shape, inputs: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(inputs, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)


def _by_products(shape: Shape, inputs: Tensor, weight: Tensor) -> Tensor:
    """The same by one matrix product for each group, of the patches that each output sees."""
    patches = F.unfold(inputs, shape.kernel, shape.dilation, shape.padding, shape.stride)
    grouped = patches.view(len(inputs), shape.groups, -1, patches.shape[2])
    found = weight.view(shape.groups, shape.outputs // shape.groups, -1) @ grouped
    over = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, padding, dilation, kernel, stride in zip(
            inputs.shape[2:], shape.padding, shape.dilation, shape.kernel, shape.stride, strict=True
        )
    ]
    return found.reshape(len(inputs), shape.outputs, *over)


def _told(shape: Shape) -> str:
    kernel, stride = "x".join(map(str, shape.kernel)), "x".join(map(str, shape.stride))
    return (
        f"kernel {kernel}, stride {stride}, groups {shape.groups}, {shape.channels} to {shape.outputs} channels, "
        f"{shape.batch} images of {shape.height}x{shape.width}"
    )


def _cost() -> int:
    """Milliseconds of a training step, median of 15 turns, and the ratio to the unguarded one."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {_machine()}, one thread, batch 64 of 3 x 32 x 32", flush=True)
    task = Task(labels=tuple("0123456789"), input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.3,) * 3)
    plain, targets = torch.rand(64, 3, 32, 32), torch.arange(64) % 10
    last = plain.contiguous(memory_format=torch.channels_last)
    space, faulty = named_space("resnet"), convolution.is_faulty
    for text in ("1-1-1/8-12-64", "3-3-3/8-16-32", "3-3-3/12-15-64"):
        network = space.build(space.parse(text), task)
        ways = {"unguarded": (last, lambda: False), "guarded": (last, lambda: True), "contiguous": (plain, faulty)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(15):
            for name, (inputs, answer) in ways.items():
                convolution.is_faulty = answer
                start = time.perf_counter()
                F.cross_entropy(network(inputs), targets).backward()
                times[name].append(time.perf_counter() - start)
        found = {name: statistics.median(taken[2:]) * 1e3 for name, taken in times.items()}
        told = ", ".join(f"{name} {ms:.1f} ms ({ms / found['unguarded']:.2f})" for name, ms in found.items())
        print(f"{text}: {told}", flush=True)
    return 0


def _machine() -> str:
    found = describe_machine()
    return f"{found['cpu']} of {found['cores']} cores, {torch.backends.cpu.get_cpu_capability()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="+", default=["machine", "AVX2"], help="values of ONEDNN_MAX_CPU_ISA")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 4], help="of torch, one after the other")
    parser.add_argument("--architectures", type=int, default=20, help="drawn from each space")
    parser.add_argument("--unguarded", action="store_true", help="as torch computes by itself")
    parser.add_argument("--cost", action="store_true", help="time steps instead")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # more threads than cores would spin
    sys.exit(main())
