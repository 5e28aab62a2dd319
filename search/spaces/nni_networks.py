"""Networks of NNI's hub as ours: a stem, a chain of blocks and a tail, between our first and our last layer.

The first layer is our normalisation, the last one Linear with bias. Dropout before it is left out, as distillation has
its own regularisation. Nothing here imports NNI.
"""

# B batch, C channels, D embedding width, H W height and width

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task

_LEAST_SIDE = 4  # of the last map, if a network made for 224 pixels is given small images


class Parts(NamedTuple):
    """Hub network without its classifier."""

    stem: nn.Module
    blocks: list[nn.Module]  # each reads the output of the one before; a `TwoInputCell` also of the one before that
    tail: nn.Module  # from the last block to the last map
    head: nn.Module | None = None  # from the pooled map [B, C, 1, 1] to [B, D, 1, 1]


class HubNetwork(PooledClassifier):
    """Network of a stem, blocks, a tail, global average pooling, a head (in one space only) and one Linear."""

    def __init__(self, parts: Parts, embedding_dim: int, task: Task) -> None:
        super().__init__(task.num_classes, embedding_dim, task.mean, task.std)
        self.stem = parts.stem
        self.body = nn.ModuleList(parts.blocks)
        self.tail, self.head = parts.tail, parts.head

    def trunk(self, inputs: Tensor) -> Tensor:
        found = self.stem(inputs)
        before, last = found if isinstance(self.stem, _TwoStems) else (found, found)
        for block in self.body:
            output = block(last, before) if isinstance(block, TwoInputCell) else block(last)
            before, last = last, output
        features: Tensor = self.tail(last)
        return features

    def blocks(self) -> list[nn.Module]:
        return list(self.body)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if self.head is None:
            return super().forward_head(features, pre_logits)
        embedding: Tensor = self.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return embedding if pre_logits else self.linear(embedding)


class TwoInputCell(nn.Module):
    """Cell of the NASNet family: reads the last two maps, returns only its own."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, last: Tensor, before: Tensor) -> Tensor:
        output: Tensor = self.cell([before, last])[1]
        return output


class _TwoStems(nn.Module):
    """ImageNet stem of the NASNet family: a map at a quarter, then one at an eighth of the side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.first(inputs)
        return quarter.relu(), self.second(quarter)  # NNI's second stem begins with a ReLU in place


def nas_bench_201(network: Any) -> Parts:
    for module in network.modules():
        if isinstance(module, nn.AvgPool2d) and module.stride == 2:
            module.ceil_mode = True  # odd sides are halved upwards, as by the convolution beside it
    return Parts(network.stem, list(network.cells), network.lastact)


def nas_bench_101(network: Any) -> Parts:
    return Parts(network.stem_conv, list(network.features), nn.Identity())


def mobilenet_v3(network: Any) -> Parts:
    *stages, last, _pooling, head = network.blocks
    return Parts(network.stem, _flat(stages), last, head)


def proxyless(network: Any) -> Parts:
    return Parts(network.stem, _flat(network.blocks), network.feature_mix_layer)


def shufflenet(network: Any) -> Parts:
    return Parts(network.first_conv, list(network.features), network.conv_last)


def nasnet(network: Any) -> Parts:
    cells = [TwoInputCell(cell) for stage in network.stages for cell in stage]
    stem = network.stem if hasattr(network, "stem") else _TwoStems(network.stem0, network.stem1)
    return Parts(stem, list(cells), nn.Identity())


def assemble(network: nn.Module, take_apart: Callable[[Any], Parts], task: Task, *, for_224: bool) -> HubNetwork:
    """Turn a hub network on the meta device into a student with PyTorch's own fresh weights.

    Args:
        for_224: the network divides the side by 32; on small images its first halvings are left out.
    """
    embedding_dim = next(m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear)).in_features
    parts = take_apart(network)
    _read_channels(parts.stem, task.input_shape[0])
    if for_224:
        _keep_maps(parts, min(task.input_shape[1:]))
    student = HubNetwork(parts, embedding_dim, task)
    for part in filter(None, (student.stem, student.body, student.tail, student.head)):
        part.to_empty(device="cpu")
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
    return student


def _read_channels(stem: nn.Module, channels: int) -> None:
    """Make the stem read `channels` channels; those of the hub read three."""
    first = next(module for module in stem.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = channels
    first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))


def _keep_maps(parts: Parts, side: int) -> None:
    """Take the stride out of the first strided parts, until the last map is at least 4 pixels wide."""
    halving = [part for part in (parts.stem, *parts.blocks) if _strided(part)]
    kept = max(0, math.ceil(math.log2(side / (_LEAST_SIDE - 1))) - 1)  # the most for which ceil(side / 2^n) >= 4
    for part in halving[: max(0, len(halving) - kept)]:
        for convolution in _strided(part):
            convolution.stride = (1, 1)


def _strided(part: nn.Module) -> list[nn.Conv2d]:
    return [module for module in part.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)]


def _flat(stages: Any) -> list[nn.Module]:
    """Return the blocks of stages; a plain Sequential is a stage, a subclass of it a block."""
    blocks: list[nn.Module] = []
    for stage in stages:
        blocks.extend(stage if type(stage) is nn.Sequential else [stage])
    return blocks
