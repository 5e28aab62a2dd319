"""The transformer's encoder block (Vaswani et al. 2017, arXiv:1706.03762), normalised before each branch."""

# B batch, T tokens, P tokens of the cache, L layers, H heads, N width of a head, D width

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cache:
    """Keys and values of the tokens before, for a decoder that goes on after them.

    Args:
        past: [B, L, 2, H, P, N], each layer's keys and values; P may be 0.
    """

    def __init__(self, past: Tensor) -> None:
        self._past, self._layers = past, list[Tensor]()

    def steps(self) -> Tensor:
        """Return 1 for each token of the past, [B, P] int64."""
        return (self._past[:, 0, 0, 0, :, 0] * 0 + 1).to(torch.int64)

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the next layer's keys and values [B, H, T, N] to those of the past, and return all."""
        before = self._past[:, len(self._layers)]
        key, value = torch.cat([before[:, 0], key], 2), torch.cat([before[:, 1], value], 2)
        self._layers.append(torch.stack([key, value], 1))
        return key, value

    def present(self) -> Tensor:
        """Return the cache after the call, [B, L, 2, H, P + T, N]."""
        return torch.stack(self._layers, 1)


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

    def forward(self, tokens: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Map tokens [B, T, D] to the same shape; `mask` [B, 1, 1 or T, P + T] is added to the attention's logits."""
        tokens = tokens + self.attention(self.norm1(tokens), mask, cache)
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

    def forward(self, tokens: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        query, key, value = (self._by_head(layer(tokens)) for layer in (self.query, self.key, self.value))
        if cache is not None:
            key, value = cache.extended(key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output

    def _by_head(self, projected: Tensor) -> Tensor:
        """Split [B, T, D] into [B, heads, T, head width]."""
        return torch.unflatten(projected, 2, (self.heads, self.head_width)).transpose(1, 2)
