"""Transformer decoders (`pipeline/networks/causal_transformer.py`): depth, heads, head width, feed-forward, tying."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.task import KindName, Task
from edgestill.search.space import Architecture, Gene, SearchSpace

_LIMITS = {"depth": (1, 100), "heads": (1, 64), "head_width": (2, 256), "feed_forward": (1, 16), "tied": (0, 1)}
_FORM = "dDEPTHhHEADSxHEAD_WIDTHfFEED_FORWARDtTIED, such as d2h4x16f2t1"

Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=100)], ...], Field(min_length=1)]
Heads = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1)]
HeadWidths = Annotated[tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(min_length=1)]
FeedForwards = Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1)]
Tied = Annotated[tuple[Annotated[int, Field(ge=0, le=1)], ...], Field(min_length=1)]


class CausalTransformerConfig(Frozen):
    """Decoders of token ids; the width is heads x head width, so that it always divides into heads."""

    name: Literal["causal_transformer"] = "causal_transformer"
    depth: Depths = Field((1, 2, 3, 4), description="choices for the depth, in decoder blocks")
    heads: Heads = Field(
        (1, 2, 3, 4), description="choices for the number of attention heads; the width is heads x head_width"
    )
    head_width: HeadWidths = Field((8, 16, 32), description="choices for the width of an attention head, in channels")
    feed_forward: FeedForwards = Field(
        (1, 2, 3, 4), description="choices for the feed-forward width, in multiples of the model width"
    )
    tied: Tied = Field((0, 1), description="choices for 1, the last layer has the embedding's weights, or 0, its own")


class CausalTransformerSpace(SearchSpace):
    name: ClassVar[str] = "causal_transformer"
    inputs: ClassVar[KindName] = "lm"
    has_channels: ClassVar[bool] = False

    def __init__(self, config: CausalTransformerConfig | None = None) -> None:
        config = config or CausalTransformerConfig()
        self.genes = tuple(Gene(name, tuple(sorted(set(getattr(config, name))))) for name in _LIMITS)

    def build(self, architecture: Architecture, task: Task) -> CausalTransformer:
        self.require(task)
        return CausalTransformer(task, **architecture.choices)

    def format(self, architecture: Architecture) -> str:
        return "d{depth}h{heads}x{head_width}f{feed_forward}t{tied}".format(**architecture.choices)

    def describe(self, architecture: Architecture) -> str:
        own = "the embedding's weights" if architecture.choices["tied"] else "weights of its own"
        return (
            "a decoder: blocks {depth}, heads {heads} of {head_width} channels, feed-forward layers {feed_forward} x "
            "as wide, a last layer with "
        ).format(**architecture.choices) + own

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"d(\d+)h(\d+)x(\d+)f(\d+)t(\d+)", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM}")
        choices = {name: int(number) for name, number in zip(_LIMITS, found.groups(), strict=True)}
        for name, (least, most) in _LIMITS.items():
            if not least <= choices[name] <= most:
                raise self.error(text, f"{name} is {choices[name]}; it goes from {least} to {most}")
        return self.make(choices)

    def embedding_dims(self) -> frozenset[int]:
        choices = {gene.name: gene.choices for gene in self.genes}
        return frozenset(heads * width for heads in choices["heads"] for width in choices["head_width"])
