"""Transformers of token ids, encoders for texts and decoders for language tasks, trained here or loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.metadata_checks import require_tokenizer
from edgestill.pipeline.teachers.named import NamedConfig, NamedTeacher

TEXT_TRANSFORMERS: dict[str, tuple[int, int, int]] = {  # depth, heads, head width
    "text_transformer_2x128": (2, 4, 32),
    "text_transformer_4x256": (4, 4, 64),
    "text_transformer_6x512": (6, 8, 64),
}
CAUSAL_TRANSFORMERS: dict[str, tuple[int, int, int]] = {
    "causal_transformer_3x64": (3, 4, 16),
    "causal_transformer_3x128": (3, 4, 32),
    "causal_transformer_4x256": (4, 4, 64),
    "causal_transformer_6x512": (6, 8, 64),
}
_FEED_FORWARD = 4


class TextTransformerConfig(NamedConfig):
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout probability of text transformers during training")


class _OfTokens(NamedTeacher):
    """A transformer that is of no use with another tokenizer than its own."""

    Config: ClassVar[type[TextTransformerConfig]] = TextTransformerConfig
    config: TextTransformerConfig

    def metadata(self, task: Task) -> dict[str, str]:
        return super().metadata(task) | {"tokenizer_sha256": task.tokenizer_sha256 or ""}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        require_tokenizer(metadata, task, path)


class TextTransformerTeacher(_OfTokens):
    """Encoders that classify texts."""

    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    architectures: ClassVar[tuple[str, ...]] = tuple(TEXT_TRANSFORMERS)

    def build(self, task: Task) -> nn.Module:
        depth, heads, head_width = TEXT_TRANSFORMERS[self.config.architecture]
        return TextTransformer(
            task,
            depth=depth,
            heads=heads,
            head_width=head_width,
            feed_forward=_FEED_FORWARD,
            dropout=self.config.dropout,
        )

    def encoder_sizes(self) -> EncoderSizes:
        depth, heads, head_width = TEXT_TRANSFORMERS[self.config.architecture]
        return EncoderSizes("text", depth, heads, heads * head_width)


class CausalTransformerTeacher(_OfTokens):
    """Decoders that continue prompts."""

    kinds: ClassVar[frozenset[str]] = frozenset({"lm"})
    architectures: ClassVar[tuple[str, ...]] = tuple(CAUSAL_TRANSFORMERS)

    def build(self, task: Task) -> nn.Module:
        depth, heads, head_width = CAUSAL_TRANSFORMERS[self.config.architecture]
        return CausalTransformer(
            task,
            depth=depth,
            heads=heads,
            head_width=head_width,
            feed_forward=_FEED_FORWARD,
            dropout=self.config.dropout,
        )
