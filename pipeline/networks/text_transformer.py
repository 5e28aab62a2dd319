"""A transformer encoder of token ids (Vaswani et al. 2017, arXiv:1706.03762), for text students and text teachers.

Id 0 is padding. It is masked in attention and left out of the mean over tokens, so that logits do not depend on the
amount of padding. Positions are the paper's sinusoids: they cost a small student no parameters.
"""

# B batch, T tokens, D width

import math

import torch
from torch import Tensor, nn

from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.attention import EncoderBlock
from edgestill.pipeline.networks.network import BlockClassifier
from edgestill.pipeline.task import Task


class TextTransformer(BlockClassifier):
    """Token ids [B, T] int64 to logits; T may differ from batch to batch.

    Args:
        dropout: rate in training, for the embedded tokens and every block's output.
    """

    def __init__(
        self, task: Task, *, depth: int, heads: int, head_width: int, feed_forward: int, dropout: float = 0.0
    ) -> None:
        super().__init__(task.num_classes, heads * head_width)
        assert task.vocab_size is not None
        self.embedding = nn.Embedding(task.vocab_size, self.embedding_dim, padding_idx=PADDING)
        self.layers = nn.ModuleList(EncoderBlock(heads, head_width, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(self.embedding_dim)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return features [B, T, D]; 0 where the token is padding."""
        is_token = inputs != PADDING
        embedded: Tensor = self.embedding(inputs)
        tokens = self.dropout(embedded + sinusoids(embedded))
        # Finite, so that a sequence of nothing but padding attends evenly instead of dividing by 0.
        mask = (~is_token).to(tokens.dtype)[:, None, None, :] * (torch.finfo(tokens.dtype).min / 2)
        for layer in self.layers:
            tokens = self.dropout(layer(tokens, mask))
        features: Tensor = self.norm(tokens)
        return features * is_token.unsqueeze(2)

    def pool(self, features: Tensor) -> Tensor:
        """Mean over tokens other than padding, [B, D]. Only padding is 0 throughout: a normalised token never is."""
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
