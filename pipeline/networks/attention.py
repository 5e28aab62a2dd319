"""The transformer's encoder block (Vaswani et al. 2017, arXiv:1706.03762), normalised before each branch."""

# B batch, T tokens, D width

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncoderBlock(nn.Module):
    """Attention and a GELU feed-forward, each on normalised tokens and added to its input.

    Args:
        heads, head_width: the width D is their product, so that it always divides into heads.
        feed_forward: hidden width of the feed-forward, in multiples of D.
    """

    def __init__(self, heads: int, head_width: int, feed_forward: int) -> None:
        super().__init__()
        width = heads * head_width
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(heads, head_width)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward * width), nn.GELU(), nn.Linear(feed_forward * width, width)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens [B, T, D] to the same shape; `mask` [B, 1, 1, T] is added to the attention's logits."""
        tokens = tokens + self.attention(self.norm1(tokens), mask)
        hidden: Tensor = self.feed_forward(self.norm2(tokens))
        return tokens + hidden


class SelfAttention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(head width) + mask) v, with Linear layers for q, k, v and output."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        width = heads * head_width
        self.heads, self.head_width = heads, head_width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (self._by_head(layer(tokens)) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output

    def _by_head(self, projected: Tensor) -> Tensor:
        """Split [B, T, D] into [B, heads, T, head width]."""
        return torch.unflatten(projected, 2, (self.heads, self.head_width)).transpose(1, 2)
