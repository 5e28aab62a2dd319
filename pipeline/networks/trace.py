"""Trace of one forward pass: every operation with the tensors it read and wrote, and its multiply-accumulates.

It is recorded below autograd, where PyTorch dispatches its primitive operations. So networks of modules and of
functions are traced alike, from any search space.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgestill.pipeline.networks.network import uninitialised

FLOAT_BYTES = 4


class Value(NamedTuple):
    """A tensor, or its new contents after an operation in place; views of it are the same value."""

    bytes: int
    memory: int  # values with the same number lie in the same memory
    is_weight: bool  # it was there before the pass: a parameter or a buffer


class Operation(NamedTuple):
    name: str  # PyTorch's, such as `convolution`
    kind: str  # conv, depthwise, linear, attention, pool, reduce, norm, activation, elementwise, move, fill or other
    form: str  # the other things that its speed may depend on: kernel, stride, groups, shapes
    kernel: int  # the larger side; 0 where there is none
    macs: int  # multiply-accumulates of convolutions, linear layers and products of matrices
    reads: tuple[int, ...]  # indices into Trace.values
    writes: tuple[int, ...]  # likewise


class Trace(NamedTuple):
    operations: tuple[Operation, ...]  # in the order of execution, views left out
    values: tuple[Value, ...]
    input: int  # index into values
    output: int  # likewise

    def needed(self) -> list[bool]:
        """Mark the operations that the output is computed from."""
        wanted = {self.output}
        needed = []
        for operation in reversed(self.operations):
            needed.append(not wanted.isdisjoint(operation.writes))
            if needed[-1]:
                wanted.update(operation.reads)
        return needed[::-1]

    def fed(self) -> list[bool]:
        """Mark the operations that depend on the network's input; the others compute constants."""
        known = {self.input}
        fed = []
        for operation in self.operations:
            fed.append(not known.isdisjoint(operation.reads))
            if fed[-1]:
                known.update(operation.writes)
        return fed


def trace_network(build: Callable[[], nn.Module], example: Tensor) -> Trace:
    """Run a fresh network once, in evaluation mode, on one example [1, ...]. Weights do not matter and are not drawn.

    Convolutions are not computed but give zeros of the right shape; only transposed ones are computed.
    """
    recorder = _Recorder(example)
    with uninitialised():
        network = build().eval()
        with torch.no_grad(), recorder:
            output = network(example)
    return recorder.finish(output)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, example: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[Operation] = []
        self._values: list[Value] = []
        self._current: dict[int, int] = {}  # storage -> index of its current value
        self._kept: list[Any] = []  # storages, kept so that no address is used twice
        self._input = self._value_of(example)
        self._values[self._input] = self._values[self._input]._replace(is_weight=False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        read = list(_tensors((args, tuple(kwargs.values()))))
        reads = tuple(dict.fromkeys(self._value_of(tensor) for tensor in read))
        result = _shape_only(*args) if name == "convolution" else func(*args, **kwargs)
        written = list(_tensors(result))
        if func.is_view or not written:
            return result
        in_place = name.endswith("_") or any(_storage(new) in map(_storage, read) for new in written)
        if in_place and not func._schema.is_mutable:
            return result  # an alias, such as `contiguous` of a contiguous tensor
        if not any(tensor.numel() for tensor in written):
            return result
        writes = tuple(dict.fromkeys(self._new_value(tensor) for tensor in written))
        if _kind(name) == "fill":
            reads = ()  # `zeros_like` reads a shape, not values
        self._operations.append(_describe(name, args, read, written, reads, writes))
        return result

    def finish(self, output: Tensor) -> Trace:
        return Trace(tuple(self._operations), tuple(self._values), self._input, self._value_of(output))

    def _value_of(self, tensor: Tensor) -> int:
        storage = _storage(tensor)
        if storage not in self._current:
            self._enter(tensor, is_weight=True)
        return self._current[storage]

    def _new_value(self, tensor: Tensor) -> int:
        self._enter(tensor, is_weight=False)
        return self._current[_storage(tensor)]

    def _enter(self, tensor: Tensor, is_weight: bool) -> None:
        storage = _storage(tensor)
        before = self._current.get(storage)
        memory = len(self._values) if before is None else self._values[before].memory
        self._current[storage] = len(self._values)
        self._values.append(Value(tensor.untyped_storage().nbytes(), memory, is_weight))
        self._kept.append(tensor.untyped_storage())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _shape_only(inputs: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
                transposed: bool, output_padding: Any, groups: int) -> Tensor:  # fmt: skip
    """Zeros in the shape of a convolution's output (PyTorch's formula); a transposed convolution is computed."""
    if transposed:
        result: Tensor = torch.ops.aten.convolution.default(
            inputs, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        )
        return result
    sides = [
        (side + 2 * pad - dilate * (kernel - 1) - 1) // step + 1
        for side, pad, dilate, kernel, step in zip(
            inputs.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    return inputs.new_zeros(len(inputs), len(weight), *sides)


_KINDS = {
    "linear": ("addmm", "mm", "bmm", "baddbmm", "matmul", "linear"),
    "pool": ("avg_pool", "max_pool", "upsample"),
    "norm": ("batch_norm", "layer_norm", "group_norm", "instance_norm"),
    "reduce": ("mean", "sum", "amax", "amin", "max", "min", "var", "var_mean", "norm"),
    "activation": ("relu", "relu_", "relu6", "gelu", "silu", "silu_", "sigmoid", "sigmoid_", "tanh", "hardtanh",
                   "hardtanh_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "leaky_relu", "elu", "clamp",
                   "clamp_min", "softplus", "exp", "_softmax", "_log_softmax", "softmax"),
    "elementwise": ("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "pow", "sqrt", "rsqrt", "neg"),
    "move": ("cat", "stack", "constant_pad_nd", "clone", "copy_", "index_select", "index", "gather", "embedding",
             "pixel_shuffle", "channel_shuffle", "_to_copy", "repeat", "roll", "slice_scatter"),
    "fill": ("zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_ones", "empty",
             "empty_like", "new_empty", "arange", "fill_", "zero_", "scalar_tensor"),
}  # fmt: skip
_BY_NAME = {name: kind for kind, names in _KINDS.items() for name in names}


def _kind(name: str) -> str:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if "attention" in name:
        return "attention"
    return next((kind for kind in ("pool", "norm") if any(part in name for part in _KINDS[kind])), "other")


def _describe(
    name: str,
    args: tuple[Any, ...],
    read: list[Tensor],
    written: list[Tensor],
    reads: tuple[int, ...],
    writes: tuple[int, ...],
) -> Operation:
    into, out = (read[0] if read else written[0]), written[0]
    kind, kernel, form = _kind(name), 0, f"{_shape(into)}>{_shape(out)}"
    macs = 0
    if name == "convolution":
        weight, stride, groups = read[1], args[3], args[8]
        kernel = max(weight.shape[2:])
        kind = "depthwise" if groups > 1 and weight.shape[1] == 1 else "conv"
        form = f"{_shape(weight[0, 0])} stride {max(stride)} groups {groups} {form}"
        macs = (into if args[6] else out).numel() * weight[0].numel()  # transposed: each input meets the weights
    elif kind == "pool" and len(args) > 1 and isinstance(args[1], list | tuple):
        kernel = max(args[1])
        form = f"{kernel} {form}"
    elif kind == "linear":
        left = read[1] if name in ("addmm", "baddbmm") else read[0]
        macs = out.numel() * left.shape[-1]
    elif kind == "attention":
        query, key = read[0], read[1]
        macs = 2 * query.numel() * key.shape[-2]
    return Operation(name, kind, form, kernel, macs, reads, writes)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:] if tensor.ndim > 2 else tensor.shape))
