"""Inverted residuals: depth, width, kernel, expansion and squeeze-excite of each of four stages.

The block is MobileNetV2's (Sandler et al. 2018, arXiv:1801.04381), squeeze-excite MobileNetV3's (Howard et al. 2019,
arXiv:1905.02244). Activations are ReLU throughout, where those papers have ReLU6 and hard-swish: ReLU6 saturates
under the weights that training-free scores draw (synflow's positive ones drive every unit to 6, where no gradient is
left), and non-negative features keep DisWOT's relation metric in its range.

How often a network halves its input follows from the image's shorter side, so that the last map is 5 to 8 pixels a
side (4 for 8 x 8 images): nothing is lost on digits, and 224 pixels are not computed at full size.
"""

import math
import re
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace

_STAGES = 4
_LIMITS = {"depth": 50, "width": 4096, "expansion": 16}
_FORM = (
    f"{_STAGES} stages and the last width, such as 1x8k3e1/2x16k5e3se/2x24k3e4/1x48k7e6se/64, each stage as "
    f"DEPTHxWIDTHkKERNELeEXPANSION, then se for squeeze-excite"
)

# Order in which strides become 2 as halvings are needed: stages 3, 2, 4, then the stem, then stage 1.
_HALVING_ORDER = (3, 2, 4, 0, 1)

Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["depth"])], ...], Field(min_length=1)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["width"])], ...], Field(min_length=1)]
Kernels = Annotated[tuple[Literal[3, 5, 7], ...], Field(min_length=1)]
Expansions = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["expansion"])], ...], Field(min_length=1)]


class MobileConfig(Frozen):
    """Inverted residuals; both metrics of DisWOT apply if every last width is the teacher's (64)."""

    name: Literal["mobile"] = "mobile"
    depths: tuple[Depths, Depths, Depths, Depths] = Field(
        ((1, 2), (1, 2, 3), (1, 2, 3), (1, 2)), description="choices for the depth of each stage, in blocks"
    )
    widths: tuple[Widths, Widths, Widths, Widths] = Field(
        ((8, 12, 16), (12, 16, 24), (24, 32, 40), (32, 48, 64)),
        description="choices for the width of each stage, in channels",
    )
    kernels: Kernels = Field(
        (3, 5, 7), description="choices for the kernel size of every stage's depthwise convolutions, in pixels"
    )
    expansions: Expansions = Field(
        (1, 2, 3, 4, 6), description="choices for the expansion of every stage; inner width over outer"
    )
    squeeze_excite: Annotated[tuple[bool, ...], Field(min_length=1)] = Field(
        (False, True), description="choices for squeeze-excite in every stage; true adds it"
    )
    last_widths: Widths = Field(
        (64,), description="choices for the channels of the 1x1 convolution before pooling, the embedding width"
    )


class MobileSpace(SearchSpace):
    name: ClassVar[str] = "mobile"

    def __init__(self, config: MobileConfig | None = None) -> None:
        config = config or MobileConfig()
        genes = []
        for i in range(_STAGES):
            choices: dict[str, tuple[int, ...]] = {
                "depth": config.depths[i],
                "width": config.widths[i],
                "kernel": config.kernels,
                "expansion": config.expansions,
                "squeeze": tuple(map(int, config.squeeze_excite)),
            }
            genes += [Gene(f"{name}{i + 1}", tuple(sorted(set(given)))) for name, given in choices.items()]
        self.genes = (*genes, Gene("last_width", tuple(sorted(set(config.last_widths)))))

    def build(self, architecture: Architecture, task: Task) -> "MobileNetwork":
        self.require(task)
        return MobileNetwork(_stages(architecture), architecture.choices["last_width"], task)

    def format(self, architecture: Architecture) -> str:
        stages = [
            f"{stage.depth}x{stage.width}k{stage.kernel}e{stage.expansion}{'se' if stage.squeeze else ''}"
            for stage in _stages(architecture)
        ]
        return "/".join([*stages, str(architecture.choices["last_width"])])

    def describe(self, architecture: Architecture) -> str:
        stages = ", then ".join(
            f"{stage.depth} of {stage.width} channels, kernel {stage.kernel}, expansion {stage.expansion}"
            + (" with squeeze and excitation" if stage.squeeze else "")
            for stage in _stages(architecture)
        )
        return f"inverted residual blocks: {stages}; {architecture.choices['last_width']} channels at the end"

    def parse(self, text: str) -> Architecture:
        *stages, last = text.strip().split("/")
        found = [re.fullmatch(r"(\d+)x(\d+)k([357])e(\d+)(se)?", stage) for stage in stages]
        if len(found) != _STAGES or not all(found) or not re.fullmatch(r"\d+", last):
            raise self.error(text, f"expected {_FORM}")
        choices: dict[str, int] = {}
        for i, match in enumerate(filter(None, found), start=1):
            numbers = zip(("depth", "width", "kernel", "expansion"), match.groups(), strict=False)
            choices |= {f"{name}{i}": int(number) for name, number in numbers}
            choices[f"squeeze{i}"] = int(match[5] is not None)
        choices["last_width"] = int(last)
        for name, value in choices.items():
            limit = next((bound for kind, bound in _LIMITS.items() if kind in name), value)
            if name[:-1] not in ("kernel", "squeeze") and not 1 <= value <= limit:
                raise self.error(text, f"{name} is {value}; it goes from 1 to {limit}")
        return self.make(choices)

    def embedding_dims(self) -> frozenset[int]:
        return frozenset(self.genes[-1].choices)


class Stage(Frozen):
    depth: int
    width: int
    kernel: int
    expansion: int
    squeeze: bool


def _stages(architecture: Architecture) -> list[Stage]:
    names = ("depth", "width", "kernel", "expansion", "squeeze")
    return [
        Stage.model_validate({name: architecture.choices[f"{name}{i + 1}"] for name in names}) for i in range(_STAGES)
    ]


def strides(height: int, width: int) -> list[int]:
    """Return the strides of the stem and of each stage's first block."""
    side = min(height, width)
    halvings = min(max(math.ceil(math.log2(side / 8)), int(side >= 8)), len(_HALVING_ORDER))
    return [2 if place in _HALVING_ORDER[:halvings] else 1 for place in range(_STAGES + 1)]


class MobileNetwork(PooledClassifier):
    """Network of a 3x3 stem as wide as the first stage, four stages of inverted residuals, and a 1x1 convolution."""

    def __init__(self, stages: list[Stage], last_width: int, task: Task) -> None:
        super().__init__(task.num_classes, last_width, task.mean, task.std)
        channels, height, width = task.input_shape
        stem_stride, *stage_strides = strides(height, width)
        self.stem = _conv_bn(channels, stages[0].width, 3, stem_stride)
        layers, before = [], stages[0].width
        for stage, stride in zip(stages, stage_strides, strict=True):
            for i in range(stage.depth):
                layers.append(InvertedResidual(before, stage, stride if i == 0 else 1))
                before = stage.width
        self.layers = nn.Sequential(*layers)
        self.last = _conv_bn(before, last_width, 1)

    def trunk(self, inputs: Tensor) -> Tensor:
        return F.relu(self.last(self.layers(F.relu(self.stem(inputs)))))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


class InvertedResidual(nn.Module):
    """Block: widen by a 1x1 convolution, filter each channel, weigh the channels, narrow without an activation."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        self.expand = _conv_bn(in_channels, inner, 1) if stage.expansion > 1 else None
        self.depthwise = _conv_bn(inner, inner, stage.kernel, stride, groups=inner)
        self.squeeze_excite = SqueezeExcite(inner) if stage.squeeze else None
        self.project = _conv_bn(inner, stage.width, 1)
        self.is_residual = stride == 1 and in_channels == stage.width

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs if self.expand is None else F.relu(self.expand(inputs))
        hidden = F.relu(self.depthwise(hidden))
        if self.squeeze_excite is not None:
            hidden = self.squeeze_excite(hidden)
        output: Tensor = self.project(hidden)
        return inputs + output if self.is_residual else output


class SqueezeExcite(nn.Module):
    """Squeeze-excite: multiplies each channel by a hard-sigmoid gate of all channels' means, via channels / 4 units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        means = inputs.mean(dim=(2, 3), keepdim=True)
        return inputs * F.hardsigmoid(self.expand(F.relu(self.reduce(means))))


def _conv_bn(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    )
