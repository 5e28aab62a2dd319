"""The CIFAR-style residual network of He et al. 2015 (arXiv:1512.03385, section 4.2)."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.networks.network import PooledClassifier

Shortcut = Literal["A", "B"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with the activation after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(in_channels, channels, stride, shortcut)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


class SubsampleAndPad(nn.Module):
    """Option A: every stride-th pixel, new channels filled with zeros; no parameters."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, channels - in_channels - before)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(inputs[:, :, :: self.stride, :: self.stride], self.padding)


class CifarResNet(PooledClassifier):
    """Three stages of basic blocks at strides 1, 2, 2 behind a 3x3 stem as wide as the first stage.

    With blocks (n, n, n) and widths (16, 32, 64) this is the ResNet-(6n+2) of the paper.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__(num_classes, widths[-1], mean, std)
        self.conv1 = nn.Conv2d(len(mean), widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = (widths[0], *widths[:-1])
        stages = [
            _stage(depth, into, width, stride, shortcut)
            for depth, into, width, stride in zip(blocks, before, widths, (1, 2, 2), strict=True)
        ]
        self.layer1, self.layer2, self.layer3 = stages

    def trunk(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        features: Tensor = self.layer3(self.layer2(self.layer1(hidden)))
        return features

    def blocks(self) -> list[nn.Module]:
        return [*self.layer1, *self.layer2, *self.layer3]


def _stage(depth: int, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, shortcut)
    rest = [BasicBlock(channels, channels, 1, shortcut) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(in_channels: int, channels: int, stride: int, option: Shortcut) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    if option == "A":
        if channels < in_channels:
            raise ValueError(f"option A cannot narrow {in_channels} to {channels} channels; use option B")
        return SubsampleAndPad(in_channels, channels, stride)
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
