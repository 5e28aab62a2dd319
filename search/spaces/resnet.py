"""CIFAR-style ResNets: the number of basic blocks and the width of each of three stages.

DisWOT's space S0 (arXiv:2303.15678) is the subset with blocks in {1, 3, 5, 7} and widths 16, 32, 64; its
ResNet-20 on 100 classes has the published 278,324 parameters because shortcuts are option B.
"""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgestill.pipeline.figures import listing
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace

_MAX_BLOCKS, _MAX_WIDTH = 200, 4096
_FORM = "blocks a stage, such as 5-3-7, or blocks and widths, such as 5-3-7/16-32-64"

Blocks = Annotated[tuple[Annotated[int, Field(ge=1, le=_MAX_BLOCKS)], ...], Field(min_length=1)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=_MAX_WIDTH)], ...], Field(min_length=1)]


class ResNetConfig(Frozen):
    """Basic-block ResNets; both metrics of DisWOT apply if every last width is the teacher's (64)."""

    name: Literal["resnet"] = "resnet"
    blocks: tuple[Blocks, Blocks, Blocks] = Field(
        ((1, 2, 3, 5, 7),) * 3, description="choices for the depth of each stage, in basic blocks"
    )
    widths: tuple[Widths, Widths, Widths] = Field(
        ((8, 12, 16, 24), (16, 24, 32, 48), (64,)), description="choices for the width of each stage, in channels"
    )


class ResNetSpace(SearchSpace):
    name: ClassVar[str] = "resnet"

    def __init__(self, config: ResNetConfig | None = None) -> None:
        config = config or ResNetConfig()
        blocks = [Gene(f"blocks{i + 1}", tuple(sorted(set(c)))) for i, c in enumerate(config.blocks)]
        widths = [Gene(f"width{i + 1}", tuple(sorted(set(c)))) for i, c in enumerate(config.widths)]
        self.genes = (*blocks, *widths)

    def build(self, architecture: Architecture, task: Task) -> CifarResNet:
        blocks, widths = _blocks_and_widths(architecture)
        return CifarResNet(blocks, widths, num_classes=task.num_classes, mean=task.mean, std=task.std, shortcut="B")

    def format(self, architecture: Architecture) -> str:
        blocks, widths = _blocks_and_widths(architecture)
        return "-".join(map(str, blocks)) + "/" + "-".join(map(str, widths))

    def describe(self, architecture: Architecture) -> str:
        blocks, widths = (listing(list(map(str, numbers))) for numbers in _blocks_and_widths(architecture))
        return f"a ResNet of {blocks} blocks with {widths} channels"

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"(\d+)-(\d+)-(\d+)(?:/(\d+)-(\d+)-(\d+))?", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM}")
        blocks = [int(n) for n in found.groups()[:3]]
        widths = [int(n) for n in found.groups(default="0")[3:]] if found[4] else [16, 32, 64]
        if not all(1 <= n <= _MAX_BLOCKS for n in blocks) or not all(1 <= n <= _MAX_WIDTH for n in widths):
            raise self.error(text, f"blocks go from 1 to {_MAX_BLOCKS} and widths from 1 to {_MAX_WIDTH}")
        named = {f"blocks{i + 1}": n for i, n in enumerate(blocks)} | {f"width{i + 1}": n for i, n in enumerate(widths)}
        return self.make(named)

    def embedding_dims(self) -> frozenset[int]:
        return frozenset(self.genes[-1].choices)


def _blocks_and_widths(architecture: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    choices = architecture.choices
    return tuple(choices[f"blocks{i}"] for i in (1, 2, 3)), tuple(choices[f"width{i}"] for i in (1, 2, 3))
