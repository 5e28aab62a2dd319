"""Text transformers, trained here or loaded (`pipeline/networks/text_transformer.py`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import nn

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
_FEED_FORWARD = 4


class TextTransformerConfig(NamedConfig):
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout probability of text transformers during training")


class TextTransformerTeacher(NamedTeacher):
    Config: ClassVar[type[TextTransformerConfig]] = TextTransformerConfig
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    architectures: ClassVar[tuple[str, ...]] = tuple(TEXT_TRANSFORMERS)
    config: TextTransformerConfig

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

    def metadata(self, task: Task) -> dict[str, str]:
        return super().metadata(task) | {"tokenizer_sha256": task.tokenizer_sha256 or ""}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        require_tokenizer(metadata, task, path)
