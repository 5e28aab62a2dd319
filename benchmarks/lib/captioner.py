"""A toy captioner: a few convolutions see, a few decoder blocks say."""

# B images, S tokens seen, D their width, T tokens of a text, V token ids

import torch
from torch import Tensor, nn

from edgestill.pipeline.networks.attention import EncoderBlock
from edgestill.pipeline.randomness import drawn_from

SEEN, WIDTH = 4, 24  # tokens that eyes give, and their width: where teacher and student meet


class Toy(nn.Module):
    """Images [B, 1, 8, 8] and token ids [B, T] to logits [B, T, V]; a token of text sees the image and those before."""

    def __init__(self, vocab_size: int, length: int, *, channels: int, depth: int, heads: int, head_width: int) -> None:
        super().__init__()
        width = heads * head_width
        self.eyes = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, WIDTH, 3, stride=2, padding=1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(2),
        )  # fmt: skip
        self.projector = nn.Linear(WIDTH, width)
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=0)
        self.places = nn.Parameter(0.1 * torch.randn(SEEN + length, width))
        self.blocks = nn.ModuleList(EncoderBlock(heads, head_width, 2) for _ in range(depth))
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, vocab_size)

    def see(self, images: Tensor) -> Tensor:
        found: Tensor = self.eyes(images).transpose(1, 2)
        return found

    def say(self, seen: Tensor, texts: Tensor) -> Tensor:
        tokens = torch.cat([self.projector(seen), self.embedding(texts)], 1)
        count = tokens.shape[1]
        tokens = tokens + self.places[:count]
        at = torch.arange(count)
        later = (at[None] > at[:, None]) & (at[None] >= SEEN)
        mask = torch.zeros(count, count).masked_fill(later, -1e9)[None, None]
        for block in self.blocks:
            tokens = block(tokens, mask)
        logits: Tensor = self.linear(self.norm(tokens[:, SEEN:]))
        return logits


def toy(seed: int, vocab_size: int, length: int, **sizes: int) -> Toy:
    with drawn_from(seed):
        return Toy(vocab_size, length, **sizes)
