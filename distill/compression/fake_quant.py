"""Fake quantisation: a network computes as if quantised to 8 bits, and is trained so that quantising costs less.

The scheme is the exported file's. Weights are symmetric, of 7 or 8 bits, with a scale for each output channel. Inputs
and outputs of layers are asymmetric uint8, with one range for the whole tensor. Gradients pass the rounding as if it
were not there (Jacob et al. 2018, arXiv:1712.05877, section 3). The quantisers and their observers are PyTorch's.

Batch norm: before fine-tuning, each one after a convolution is folded into it, with its running statistics, for good.
The exported file holds this same network, so training rounds the weights as the file does. The price: nothing
renormalises the activations as the weights move, so fine-tuning begins at a low learning rate. A batch norm after no
convolution stays, in float.

After folding comes cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721, section 4.1): if only a ReLU stands
between two convolutions, a channel may be scaled on one side of it and back on the other. Without it, ranges may differ
wildly from channel to channel: a single range for the tensor cannot hold them, and gradient descent diverges on them.

Quantised: the inputs of convolutions and of the classifier, their weights, and the operands of sums. In float: biases,
pooling, and a method's head in the classifier's place.
"""

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.ao.nn import qat
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
)
from torch.ao.quantization import _equalize as equalisation
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgestill.distill.compression.tracing import traceable, traced
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import FailedError
from edgestill.pipeline.networks.network import Classifier

_RELU = (F.relu, F.relu_, torch.relu, "relu", "relu_")


class FakeQuantError(FailedError):
    """The network cannot be trained as if it were quantised; the message says why."""


class _Activation(FakeQuantize):
    """Fake quantiser of activations; its range follows them in training mode only: validation must not move it."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.enable_observer(self.training)
        quantised: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return quantised


def fake_quantized(
    network: nn.Module, batches: Iterable[Batch], *, classifier: bool, weight_bits: int = 7
) -> nn.Module:
    """Return a copy with batch norms folded and fake quantisers put in, their ranges initialised on these batches.

    Args:
        classifier: True quantises the network's own classifier too; False if a method's head takes its place.
        weight_bits: 7 (weights within ±64) or 8 (±127), as in the exported file.

    Raises:
        FakeQuantError: torch.fx cannot trace the network, or it has no feature maps.
    """
    batches = list(batches)
    made = _folded(network, batches[0].inputs[:2].cpu())
    _equalise(made)
    graph = traced(made, FakeQuantError)
    modules = dict(made.named_modules())
    last = cast(Classifier, made).get_classifier()
    for node in graph.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) or (layer is last and classifier):
            assert layer is not None
            output = layer is not last and _activated_by(node, modules) is None
            _replace(made, str(node.target), _quantised(layer, _WEIGHTS[weight_bits], output=output))
        elif isinstance(layer, nn.Identity) and not _follows_convolution(node, modules):
            _replace(made, str(node.target), _ACTIVATION())  # a shortcut, an operand of a sum
    for module in made.modules():
        module.train(isinstance(module, _Activation))
    with torch.no_grad():
        for batch in batches:
            made(batch.inputs.cpu())
    return made.train()


def without_fake_quant(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with the trained weights in ordinary layers; batch norms stay folded."""
    made = copy.deepcopy(network).cpu().eval()
    for name, module in list(made.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], _Activation):
            _replace(made, name, cast(Any, module[1]).to_float())
    for name in [name for name, module in made.named_modules() if isinstance(module, _Activation)]:
        _replace(made, name, nn.Identity())
    return made


def _folded(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Copy the network to the CPU, in evaluation mode, and fold batch norms into the convolutions before them."""
    made = traceable(network, inputs)
    if made is None:
        raise FakeQuantError("only networks of feature maps are fine-tuned for INT8, and this one is a transformer")
    modules = dict(made.named_modules())
    for node in traced(made, FakeQuantError).graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        convolution = modules[str(before.target)]
        if isinstance(convolution, nn.Conv2d) and len(before.users) == 1:
            _replace(made, str(before.target), fuse_conv_bn_eval(convolution, norm))
            _replace(made, str(node.target), nn.Identity())
    return made


def _equalise(network: nn.Module) -> None:
    """Equalise, in place, the channel ranges of each pair of ungrouped convolutions with only a ReLU between them."""
    modules = dict(network.named_modules())
    for node in traced(network, FakeQuantError).graph.nodes:
        first = modules.get(str(node.target)) if node.op == "call_module" else None
        after = _activated_by(node, modules)
        readers = list(after.users) if after is not None else []
        second = modules.get(str(readers[0].target)) if len(readers) == 1 else None
        pair = (first, second)
        if all(isinstance(layer, nn.Conv2d) and layer.groups == 1 for layer in pair):
            with torch.no_grad():
                equalisation.cross_layer_equalization(*pair)  # type: ignore[no-untyped-call]


def _activated_by(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """Return the ReLU if it alone reads the output: the runtime then fuses it, and quantises behind it."""
    users = list(node.users)
    while len(users) == 1 and isinstance(modules.get(str(users[0].target)), nn.Identity):
        users = list(users[0].users)
    return users[0] if len(users) == 1 and users[0].target in _RELU else None


def _follows_convolution(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """True if an identity stands in the place of a folded batch norm."""
    source = node.args[0] if node.args else None
    layer = modules.get(str(source.target)) if isinstance(source, fx.Node) else None
    return isinstance(layer, nn.Conv2d)


def _quantised(layer: nn.Module, weight: Any, *, output: bool) -> nn.Sequential:
    """Wrap a layer in fake quantisers of its input, its weights and, if asked for, its output."""
    layer.qconfig = QConfig(activation=_ACTIVATION, weight=weight)  # type: ignore[assignment, no-untyped-call]
    kind: Any = qat.Conv2d if isinstance(layer, nn.Conv2d) else qat.Linear
    made = kind.from_float(layer.train())
    return nn.Sequential(_ACTIVATION(), made, *([_ACTIVATION()] if output else []))


_ACTIVATION: Any = _Activation.with_args(  # type: ignore[no-untyped-call]
    observer=MovingAverageMinMaxObserver,
    quant_min=0,
    quant_max=255,
    dtype=torch.quint8,
    qscheme=torch.per_tensor_affine,
)
# The scales follow the present weights: with an averaging constant of 1 the observer has no memory.
_WEIGHTS: dict[int, Any] = {
    bits: FakeQuantize.with_args(  # type: ignore[no-untyped-call]
        observer=MovingAveragePerChannelMinMaxObserver,
        averaging_constant=1.0,
        quant_min=-largest,
        quant_max=largest,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    for bits, largest in ((7, 64), (8, 127))
}


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(holder), attribute, module)
