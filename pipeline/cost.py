"""What a network costs, counted and not measured: parameters and multiply-accumulates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.frozen import Frozen
from pipeline.network import uninitialised


class Cost(Frozen):
    params: int  # trainable parameters
    flops: int  # multiply-accumulates of one image; what NAS and ResNet papers call FLOPs


def measure_cost(build: Callable[[], nn.Module], input_shape: tuple[int, int, int]) -> Cost:
    """Count with one image and without computing: layers with weights only answer with an output's shape.

    Convolutions and linear layers are counted, one multiply-accumulate as one; normalisation, activations,
    pooling and sums are not. (NAS-Bench-201's table counts some of those, so its FLOPs are 2 to 10 % higher on
    most cells; its parameters are the same to the last one.)
    """
    with uninitialised():
        network = build().eval()
    counter = _Counter()
    for module in network.modules():
        # The network is thrown away. Ten times faster than a pass on the meta device, whose kernels are Python.
        if isinstance(module, nn.Conv2d):
            module.forward = counter.convolution(module)  # type: ignore[method-assign, assignment]
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = _identity  # type: ignore[method-assign, assignment]
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(counter.linear)
    with torch.no_grad():
        network(torch.zeros(1, *input_shape))
    return Cost(params=sum(p.numel() for p in network.parameters()), flops=counter.macs)


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
