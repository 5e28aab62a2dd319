"""Transformer encoders of text (`pipeline/networks/text_transformer.py`): depth, heads, head width, feed-forward."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.task import KindName, Task
from edgestill.search.space import Architecture, Gene, SearchSpace

_LIMITS = {"depth": 100, "heads": 64, "head_width": 256, "feed_forward": 16}
_FORM = "dDEPTHhHEADSxHEAD_WIDTHfFEED_FORWARD, such as d2h4x16f2"

Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["depth"])], ...], Field(min_length=1)]
Heads = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["heads"])], ...], Field(min_length=1)]
HeadWidths = Annotated[tuple[Annotated[int, Field(ge=2, le=_LIMITS["head_width"])], ...], Field(min_length=1)]
FeedForwards = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["feed_forward"])], ...], Field(min_length=1)]


class TextTransformerConfig(Frozen):
    """Encoders of token ids; the width is heads x head width, so that it always divides into heads."""

    name: Literal["text_transformer"] = "text_transformer"
    depth: Depths = Field((1, 2, 3, 4), description="choices for the depth, in encoder blocks")
    heads: Heads = Field(
        (1, 2, 3, 4), description="choices for the number of attention heads; the width is heads x head_width"
    )
    head_width: HeadWidths = Field((8, 16, 32), description="choices for the width of an attention head, in channels")
    feed_forward: FeedForwards = Field(
        (1, 2, 3, 4), description="choices for the feed-forward width, in multiples of the model width"
    )


class TextTransformerSpace(SearchSpace):
    name: ClassVar[str] = "text_transformer"
    inputs: ClassVar[KindName] = "text"
    has_channels: ClassVar[bool] = False

    def __init__(self, config: TextTransformerConfig | None = None) -> None:
        config = config or TextTransformerConfig()
        self.genes = tuple(Gene(name, tuple(sorted(set(getattr(config, name))))) for name in _LIMITS)

    def build(self, architecture: Architecture, task: Task) -> TextTransformer:
        self.require(task)
        return TextTransformer(task, **architecture.choices)

    def format(self, architecture: Architecture) -> str:
        return "d{depth}h{heads}x{head_width}f{feed_forward}".format(**architecture.choices)

    def describe(self, architecture: Architecture) -> str:
        return (
            "a transformer: blocks {depth}, heads {heads} of {head_width} channels, "
            "feed-forward layers {feed_forward} x as wide"
        ).format(**architecture.choices)

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"d(\d+)h(\d+)x(\d+)f(\d+)", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM}")
        choices = {name: int(number) for name, number in zip(_LIMITS, found.groups(), strict=True)}
        for name, limit in _LIMITS.items():
            least = 2 if name == "head_width" else 1  # one channel, normalised, is 0
            if not least <= choices[name] <= limit:
                raise self.error(text, f"{name} is {choices[name]}; it goes from {least} to {limit}")
        return self.make(choices)

    def embedding_dims(self) -> frozenset[int]:
        choices = {gene.name: gene.choices for gene in self.genes}
        return frozenset(heads * width for heads in choices["heads"] for width in choices["head_width"])
