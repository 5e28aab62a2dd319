"""Small vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929): depth, heads, feed-forward, grid of patches.

A grid of g cuts the image into at most g x g patches: their side is the image's longer side over g, rounded up, so a
member means the same at every resolution. The embedding is the mean of the tokens, not a class token: the mean needs no
extra token, weighs every position alike as in the convolutional spaces, and costs small ViTs no accuracy (Beyer, Zhai
and Kolesnikov 2022, arXiv:2205.01580).
"""

import re
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.attention import EncoderBlock
from edgestill.pipeline.networks.network import PooledClassifier
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace

_LIMITS = {"depth": 100, "heads": 64, "head_width": 256, "feed_forward": 16, "grid": 64}
_FORM = "dDEPTHhHEADSxHEAD_WIDTHfFEED_FORWARDgGRID, such as d4h4x16f2g8"

Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["depth"])], ...], Field(min_length=1)]
Heads = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["heads"])], ...], Field(min_length=1)]
HeadWidths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["head_width"])], ...], Field(min_length=1)]
FeedForwards = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["feed_forward"])], ...], Field(min_length=1)]
Grids = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["grid"])], ...], Field(min_length=1)]


class VitConfig(Frozen):
    """Patch transformers; both metrics of DisWOT apply if every heads x head_width is the teacher's width (64)."""

    name: Literal["vit"] = "vit"
    depth: Depths = Field((2, 3, 4, 6, 8), description="choices for the depth, in encoder blocks")
    heads: Heads = Field(
        (2, 3, 4, 6), description="choices for the number of attention heads; the width is heads x head_width"
    )
    head_width: HeadWidths = Field((16,), description="choices for the width of an attention head, in channels")
    feed_forward: FeedForwards = Field(
        (1, 2, 3, 4), description="choices for the feed-forward width, in multiples of the model width"
    )
    grid: Grids = Field((4, 8), description="choices for the grid of patches, in patches a side")


class VitSpace(SearchSpace):
    name: ClassVar[str] = "vit"
    has_channels: ClassVar[bool] = False

    def __init__(self, config: VitConfig | None = None) -> None:
        config = config or VitConfig()
        self.genes = tuple(Gene(name, tuple(sorted(set(getattr(config, name))))) for name in _LIMITS)

    def build(self, architecture: Architecture, task: Task) -> "VisionTransformer":
        self.require(task)
        return VisionTransformer(architecture.choices, task)

    def format(self, architecture: Architecture) -> str:
        return "d{depth}h{heads}x{head_width}f{feed_forward}g{grid}".format(**architecture.choices)

    def describe(self, architecture: Architecture) -> str:
        return (
            "a vision transformer of {grid} x {grid} patches: blocks {depth}, heads {heads} of {head_width} channels, "
            "feed-forward layers {feed_forward} x as wide"
        ).format(**architecture.choices)

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"d(\d+)h(\d+)x(\d+)f(\d+)g(\d+)", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM}")
        choices = {name: int(number) for name, number in zip(_LIMITS, found.groups(), strict=True)}
        for name, limit in _LIMITS.items():
            if not 1 <= choices[name] <= limit:
                raise self.error(text, f"{name} is {choices[name]}; it goes from 1 to {limit}")
        return self.make(choices)

    def embedding_dims(self) -> frozenset[int]:
        choices = {gene.name: gene.choices for gene in self.genes}
        return frozenset(heads * width for heads in choices["heads"] for width in choices["head_width"])


class VisionTransformer(PooledClassifier):
    """Patches by a strided convolution, learnt positions, encoder blocks, a last norm, and the mean over tokens."""

    def __init__(self, choices: dict[str, int], task: Task) -> None:
        heads, head_width = choices["heads"], choices["head_width"]
        super().__init__(task.num_classes, heads * head_width, task.mean, task.std)
        channels, height, width = task.input_shape
        patch = -(-max(height, width) // choices["grid"])
        rows, columns = -(-height // patch), -(-width // patch)
        self.padding = (0, columns * patch - width, 0, rows * patch - height)
        self.patches = nn.Conv2d(channels, self.embedding_dim, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, rows * columns, self.embedding_dim))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.layers = nn.Sequential(
            *(EncoderBlock(heads, head_width, choices["feed_forward"]) for _ in range(choices["depth"]))
        )
        self.norm = nn.LayerNorm(self.embedding_dim)

    def trunk(self, inputs: Tensor) -> Tensor:
        """Map normalised images [B, C, H, W] to layer-normalised tokens [B, T, D], of either sign."""
        if any(self.padding):
            inputs = F.pad(inputs, self.padding)
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.positions
        features: Tensor = self.norm(self.layers(tokens))
        return features

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)
