"""A transformer decoder (Vaswani et al. 2017, arXiv:1706.03762), for language students and their teachers.

As a classifier it answers with the token after the last one of its input; its embedding is the last token's state.
`look` with rows gives the answer at any other position from the same pass. Padding stands behind a text, where no
token looks. Positions are sinusoids, which cost no parameters and set no longest text.
"""

# B batch, T tokens, P tokens of the cache, L layers, H heads, N width of a head, D width

import math

import torch
from torch import Tensor, nn

from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.attention import Cache, EncoderBlock
from edgestill.pipeline.networks.network import BlockClassifier
from edgestill.pipeline.task import Task


class CausalTransformer(BlockClassifier):
    """Token ids [B, T] int64 to logits of the token that follows; T may differ from batch to batch.

    Args:
        tied: 1 gives the last Linear the embedding's weights (Press and Wolf 2017, arXiv:1608.05859).
        dropout: rate in training, for the embedded tokens and every block's output.
    """

    def __init__(
        self,
        task: Task,
        *,
        depth: int,
        heads: int,
        head_width: int,
        feed_forward: int,
        tied: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(task.num_classes, heads * head_width)
        assert task.vocab_size is not None
        self.cache_shape = (depth, heads, head_width)
        self.embedding = nn.Embedding(task.vocab_size, self.embedding_dim, padding_idx=PADDING)
        self.scale = 1.0
        self.layers = nn.ModuleList(EncoderBlock(heads, head_width, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(self.embedding_dim)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        if tied:
            self._tie()

    def _tie(self) -> None:
        """Share the weights, small for the Linear and scaled up where they embed, as section 3.4 of the paper does."""
        self.scale = math.sqrt(self.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        self.linear.weight = self.embedding.weight

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return states [B, T, D]; 0 where the token is padding."""
        return self.states(inputs)

    def states(self, inputs: Tensor, cache: Cache | None = None) -> Tensor:
        """Return states [B, T, D] of tokens that follow those of the cache, which learns them."""
        places = (inputs * 0 + 1).cumsum(1) - 1  # no Range over a sum of sides, whose size no one could infer
        known = places
        if cache is not None:
            before = cache.steps()
            places = places + before.sum(1, keepdim=True)
            known = torch.cat([before.cumsum(1) - 1, places], 1)
        embedded: Tensor = self.embedding(inputs) * self.scale
        tokens = self.dropout(embedded + _sinusoids(places, embedded))
        later = known[:, None, None, :] > places[:, None, :, None]
        mask = later.to(tokens.dtype) * (torch.finfo(tokens.dtype).min / 2)
        for layer in self.layers:
            tokens = self.dropout(layer(tokens, mask, cache))
        features: Tensor = self.norm(tokens)
        return features * (inputs != PADDING).unsqueeze(2)

    def pool(self, features: Tensor) -> Tensor:
        return last_token(features)

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


def last_token(features: Tensor) -> Tensor:
    """State of the last token, [B, D]. Only padding is 0 throughout: a normalised token never is."""
    is_token = (features.detach().abs().amax(2) > 0).to(features.dtype)
    is_last = is_token * (is_token.cumsum(1) == is_token.sum(1, keepdim=True))
    return (features * is_last.unsqueeze(2)).sum(1)


def _sinusoids(places: Tensor, like: Tensor) -> Tensor:
    """Positions [B, T, D]: sin and cos of t / 10000^(2 i / D), section 3.5 of the paper, sines first."""
    width = like.shape[2]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(10_000) / width))
    angles = places.to(like.dtype).unsqueeze(2) * rates
    return torch.cat([angles.sin(), angles.cos()], 2)[:, :, :width]
