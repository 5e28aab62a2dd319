"""Transformer encoders of text (Vaswani et al. 2017, arXiv:1706.03762): depth, heads, head width, feed-forward.

Token ids go in; id 0 is padding. It is masked in attention and left out of the mean over tokens, so that logits do not
depend on how far a sequence was padded. Positions are the paper's sinusoids: they cost a small student no parameters.
"""

# B batch, T tokens, D width

import math
import re
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.attention import EncoderBlock
from pipeline.frozen import Frozen
from pipeline.network import BlockClassifier
from pipeline.task import PADDING, InputKind, Task
from search.space import Architecture, Gene, SearchSpace

_LIMITS = {"depth": 100, "heads": 64, "head_width": 256, "feed_forward": 16}
_FORM = "dDEPTHhHEADSxHEAD_WIDTHfFEED_FORWARD, such as d2h4x16f2"

Depths = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["depth"])], ...], Field(min_length=1)]
Heads = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["heads"])], ...], Field(min_length=1)]
HeadWidths = Annotated[tuple[Annotated[int, Field(ge=2, le=_LIMITS["head_width"])], ...], Field(min_length=1)]
FeedForwards = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["feed_forward"])], ...], Field(min_length=1)]


class TextTransformerConfig(Frozen):
    """Encoders of token ids; the width is heads x head width, so that it always divides into heads."""

    name: Literal["text_transformer"] = "text_transformer"
    depth: Depths = Field((1, 2, 3, 4), description="choices, in encoder blocks")
    heads: Heads = Field((1, 2, 3, 4), description="choices")
    head_width: HeadWidths = Field((8, 16, 32), description="choices")
    feed_forward: FeedForwards = Field((1, 2, 3, 4), description="choices, in multiples of the width")


class TextTransformerSpace(SearchSpace):
    name: ClassVar[str] = "text_transformer"
    inputs: ClassVar[InputKind] = "text"

    def __init__(self, config: TextTransformerConfig | None = None) -> None:
        config = config or TextTransformerConfig()
        self.genes = tuple(Gene(name, tuple(sorted(set(getattr(config, name))))) for name in _LIMITS)

    def build(self, architecture: Architecture, task: Task) -> "TextTransformer":
        self.require(task)
        return TextTransformer(architecture.choices, task)

    def format(self, architecture: Architecture) -> str:
        return "d{depth}h{heads}x{head_width}f{feed_forward}".format(**architecture.choices)

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


class TextTransformer(BlockClassifier):
    """Token ids [B, T] int64 to logits; T may differ from batch to batch."""

    def __init__(self, choices: dict[str, int], task: Task) -> None:
        heads, head_width = choices["heads"], choices["head_width"]
        super().__init__(task.num_classes, heads * head_width)
        assert task.vocab_size is not None
        self.embedding = nn.Embedding(task.vocab_size, self.embedding_dim, padding_idx=PADDING)
        self.layers = nn.ModuleList(
            EncoderBlock(heads, head_width, choices["feed_forward"]) for _ in range(choices["depth"])
        )
        self.norm = nn.LayerNorm(self.embedding_dim)

    def forward_features(self, inputs: Tensor) -> Tensor:
        """[B, T, D]; 0 where the token is padding."""
        is_token = inputs != PADDING
        embedded: Tensor = self.embedding(inputs)
        tokens = embedded + sinusoids(embedded)
        # Finite, so that a sequence of nothing but padding attends evenly instead of dividing by 0.
        mask = (~is_token).to(tokens.dtype)[:, None, None, :] * (torch.finfo(tokens.dtype).min / 2)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        features: Tensor = self.norm(tokens)
        return features * is_token.unsqueeze(2)

    def pool(self, features: Tensor) -> Tensor:
        """The mean over tokens that are not padding: a normalised token is never 0 throughout."""
        count = (features.detach().abs().amax(2) > 0).sum(1, keepdim=True)
        return features.sum(1) / count.clamp_min(1)

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


def sinusoids(like: Tensor) -> Tensor:
    """Positions [T, D] for tokens [B, T, D]: sin and cos of t / 10000^(2 i / D), section 3.5 of the paper."""
    length, width = like.shape[1:]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(10_000) / width))
    angles = torch.arange(length, device=like.device, dtype=like.dtype)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
