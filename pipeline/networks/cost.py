"""The cost of a network, counted and not measured: parameters and multiply-accumulates."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgestill.pipeline.frozen import Count, Frozen
from edgestill.pipeline.networks.network import uninitialised


class Cost(Frozen):
    params: Count  # trainable parameters
    flops: Count  # multiply-accumulates of one input, called FLOPs in NAS and ResNet papers
    # Counted or measured only where a budget asks for them:
    size_bytes: int | None = None  # of the fp32 ONNX file, an upper bound
    peak_activation_bytes: int | None = None  # of one image; pipeline/networks/activation_memory.py
    latency_ms: float | None = None
    latency_error: float | None = None  # relative, of a predicted latency; None: measured


def measure_cost(
    build: Callable[[], nn.Module], input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Cost:
    """Count the cost of one input. Convolutions and attention are not computed but give zeros of the right shape.

    Convolutions, linear layers and the two matrix products of attention are counted, a multiply-accumulate as one;
    normalisation, activations, softmax, look-ups, pooling and sums are not. A sequence counts at its full length.
    (NAS-Bench-201's table counts some of those, so its FLOPs are 2 to 10 % higher on most cells; its numbers of
    parameters are exactly the same.)
    """
    counter = _Counter()
    with uninitialised():
        network = build().eval()
        for module in network.modules():
            # The network is thrown away, so patching is safe. It is ten times faster than a pass on the meta device,
            # where kernels are Python.
            if isinstance(module, nn.Conv2d):
                module.forward = counter.convolution(module)  # type: ignore[method-assign, assignment]
            elif isinstance(module, nn.BatchNorm2d):
                module.forward = _identity  # type: ignore[method-assign, assignment]
            elif isinstance(module, nn.Linear):
                module.register_forward_hook(counter.linear)
        with torch.no_grad(), _MatrixProducts(counter):
            network(torch.zeros(1, *input_shape, dtype=dtype))
    return Cost(params=sum(p.numel() for p in network.parameters()), flops=counter.macs)


def count_cost(network: nn.Module, run: Callable[[], object]) -> tuple[int, int]:
    """Count parameters and multiply-accumulates as torch runs the network, whatever its layers.

    Args:
        run: gives it one input.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


class _Counter:
    def __init__(self) -> None:
        self.macs = 0

    def convolution(self, layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
        def forward(inputs: Tensor) -> Tensor:
            output = inputs.new_zeros(len(inputs), layer.out_channels, *_output_size(layer, inputs))
            self.macs += output.numel() * layer.weight[0].numel()
            return output

        return forward

    def linear(self, layer: nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        self.macs += output.numel() * layer.in_features


class _MatrixProducts(TorchFunctionMode):
    """Counter of the products of two activations, which belong to no layer with weights."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = (*args, *((kwargs or {})[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            rows = math.prod(query.shape[:-1])
            self._counter.macs += rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
            return query.new_zeros(*query.shape[:-1], value.shape[-1])
        output = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            self._counter.macs += output.numel() * args[0].shape[-1]
        return output


_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})


def _output_size(layer: nn.Conv2d, inputs: Tensor) -> list[int]:
    """PyTorch's formula for Conv2d, a spatial dimension at a time."""
    padding: Sequence[int | str] = [layer.padding] * 2 if isinstance(layer.padding, str) else layer.padding
    sizes = []
    for i, size in enumerate(inputs.shape[2:]):
        reach = layer.dilation[i] * (layer.kernel_size[i] - 1)
        given = padding[i]
        pad = {"same": reach, "valid": 0}[given] if isinstance(given, str) else 2 * given
        sizes.append((size + pad - reach - 1) // layer.stride[i] + 1)
    return sizes


def _identity(inputs: Tensor) -> Tensor:
    return inputs
