"""Networks of timm as students: our first and last layer around them, and plain layers within.

timm's own layers that our tools do not know are replaced by torch's, of the same function: batch norm with an
activation inside, convolutions that pad as TensorFlow does, and activations that overwrite their input. So pruning,
fake quantisation and the counting of costs hold for them.
"""

# B batch, C channels, D embedding width, H W height and width, T tokens

import functools
import importlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.errors import MissingDependencyError, nearest
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task
from edgestill.pipeline.torchvision_compat import repair

Side = tuple[int, int]  # height and width, in pixels
_GREY = (0.5,)


class Backbone(PooledClassifier):
    """Network of timm on images resized to its side, and one Linear on its embedding.

    The normalisation is that of the published weights, whatever the first weights are. Grey images are given to all
    three channels, so published weights see them as they would see a grey photograph.
    """

    def __init__(self, model: str, resolution: int, task: Task) -> None:
        body: Any = created(model)
        super().__init__(task.num_classes, _width(body), *_pixels(model))
        channels, height, width = task.input_shape
        self.is_grey = channels == 1
        self.feature_dim = int(body.num_features)
        self.side = resized(height, width, resolution)
        self.halved = max(1, min(height // self.side[0], width // self.side[1]))  # averaged over so many pixels a side
        self.resizes = self.side != (height // self.halved, width // self.halved)
        self.body: Any = plain(body, self.side)

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self._features(self.normalize(self._in_colour(inputs)))

    def trunk(self, inputs: Tensor) -> Tensor:
        return self._features(self._in_colour(inputs))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding: Tensor = self.body.forward_head(features, pre_logits=True)
        return embedding if pre_logits else self.linear(embedding)

    def blocks(self) -> list[nn.Module]:
        return _blocks(self.body)

    def _in_colour(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs] * 3, 1) if self.is_grey else inputs

    def _features(self, inputs: Tensor) -> Tensor:
        # Averaging before the interpolation keeps fine patterns from aliasing, with operators that every runtime has.
        if self.halved > 1:
            inputs = F.avg_pool2d(inputs, self.halved)
        if self.resizes:
            inputs = F.interpolate(inputs, size=self.side, mode="bilinear", align_corners=False)
        features: Tensor = self.body.forward_features(inputs)
        return features


def resized(height: int, width: int, resolution: int) -> Side:
    """Return the side of images whose shorter side is made so long; 0 leaves them as they are."""
    factor = resolution / min(height, width) if resolution else 1.0
    return round(height * factor), round(width * factor)


def known(model: str) -> str | None:
    """Return why a model cannot be a student; None if it can.

    Raises:
        MissingDependencyError: timm is not installed.
    """
    timm = _timm()
    if not timm.is_model(model.partition(".")[0]):
        close = nearest(model, timm.list_models()).partition("known: ")[0].strip()
        return f"timm knows no network {model!r}; {close or 'timm.list_models() lists what it knows'}"
    found = timm.get_pretrained_cfg(model, allow_unregistered=True)
    if found is not None and found.fixed_input_size:
        return f"{model} takes images of one size only, and students choose theirs; leave it out"
    return None


def created(model: str, pretrained: bool = False) -> nn.Module:
    """Make timm's network without a classifier; nothing in its pass depends on chance."""
    network: nn.Module = _timm().create_model(model, pretrained=pretrained, num_classes=0)
    for module in network.modules():
        for name in ("drop_prob", "drop_rate", "p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return network


@functools.cache
def embedding_width(model: str) -> int:
    with torch.device("meta"):
        return _width(_timm().create_model(model, num_classes=0))


def published(model: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a published file for a network without a classifier: wrappers' prefixes are stripped."""
    while tensors and not any(name in own for name in tensors):
        heads = {name.partition(".")[0] for name in tensors}
        if len(heads) != 1:
            break
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    named = _cfg(model).get("classifier") or ()
    heads = {named} if isinstance(named, str) else set(named)
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in heads - {""}}


def plain(network: nn.Module, side: Side) -> nn.Module:
    """Replace timm's own layers by torch's, in place. Equal weights give equal outputs on images of this side."""
    layers = importlib.import_module("timm.layers")
    padded = [name for name, module in network.named_modules() if isinstance(module, layers.Conv2dSame)]
    paddings = _paddings(network, padded, side) if padded else {}
    for name, module in list(network.named_modules()):
        made: nn.Module | None = None
        if name in paddings:
            made = _padded(module, paddings[name])
        elif type(module) is layers.BatchNormAct2d:
            made = _norm_then_act(module)
        if made is not None:
            _put(network, name, made)
    for name, module in list(network.named_modules()):
        if type(module) is nn.ReLU:
            _put(network, name, Relu())
        elif getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010 - mypy knows no such attribute
    return network


class Relu(nn.Module):
    """ReLU as a function, which torch.fx looks into: fake quantisation then knows that the runtime fuses it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(inputs)


def _norm_then_act(module: Any) -> nn.Module:
    norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    norm.load_state_dict(module.state_dict())
    if isinstance(module.act, nn.Identity):
        return norm
    return nn.Sequential(OrderedDict(norm=norm, act=module.act))


def _padded(module: Any, padding: tuple[int, int, int, int]) -> nn.Module:
    """Return a padding of zeros and a convolution, or a convolution alone where the padding is symmetrical."""
    left, right, above, below = padding
    is_even = left == right and above == below
    made = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        (above, left) if is_even else 0,
        module.dilation,
        module.groups,
        bias=module.bias is not None,
    )
    made.weight, made.bias = module.weight, module.bias
    return made if is_even else nn.Sequential(OrderedDict(pad=nn.ZeroPad2d(padding), conv=made))


def _paddings(network: nn.Module, names: list[str], side: Side) -> dict[str, tuple[int, int, int, int]]:
    """Return each convolution's padding, left, right, above and below, from one pass on an image of this side."""
    found: dict[str, tuple[int, int, int, int]] = {}

    def note(name: str, module: Any, given: tuple[Tensor, ...]) -> None:
        height, width = given[0].shape[-2:]
        found[name] = _same_padding(module, (height, width))

    hooks = [network.get_submodule(name).register_forward_pre_hook(functools.partial(note, name)) for name in names]
    was_training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *side))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


def _same_padding(module: Any, side: Side) -> tuple[int, int, int, int]:
    """Return TensorFlow's padding, with which an output has a pixel for each stride begun."""
    (above, below), (left, right) = (
        _halves((math.ceil(length / stride) - 1) * stride + (kernel - 1) * dilation + 1 - length)
        for length, kernel, stride, dilation in zip(
            side, module.kernel_size, module.stride, module.dilation, strict=True
        )
    )
    return left, right, above, below


def _halves(total: int) -> tuple[int, int]:
    total = max(total, 0)
    return total // 2, total - total // 2


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(holder), attribute, module)


def _blocks(network: Any) -> list[nn.Module]:
    """Return the blocks in order, as far as timm's networks of one family name them alike."""
    flat: list[nn.Module] = []
    for stage in _stages(network):
        flat.extend(stage if type(stage) is nn.Sequential else [stage])
    return flat


def _stages(network: Any) -> list[nn.Module]:
    for name in ("blocks", "stages"):
        if isinstance(getattr(network, name, None), nn.Sequential | nn.ModuleList):
            return list(getattr(network, name))
    if hasattr(network, "layer4"):
        return [getattr(network, f"layer{number}") for number in range(1, 5)]
    return [network.get_submodule(info["module"]) for info in network.feature_info]


def _width(network: Any) -> int:
    return int(getattr(network, "head_hidden_size", None) or network.num_features)


def _pixels(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels that the published weights expect."""
    found = _cfg(model)
    return tuple(found.get("mean") or _GREY * 3), tuple(found.get("std") or _GREY * 3)


def _cfg(model: str) -> dict[str, Any]:
    found = _timm().get_pretrained_cfg(model, allow_unregistered=True)
    return {} if found is None else dict(found.to_dict())


def _timm() -> Any:
    repair()
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise MissingDependencyError(
            f"students of space 'backbones' need the library timm: pip install 'edgestill[timm]' ({error})"
        ) from None
