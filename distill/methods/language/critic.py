"""A critic of written answers: a copy of the teacher that learns to tell right ones from wrong ones."""

# M texts, T tokens

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.network import evaluating, look
from edgestill.pipeline.randomness import drawn_from

_BATCH, _DROPOUT = 128, 0.1  # of the authors' critic
_AT_ONCE = 512  # texts


class Critic(nn.Module):
    """A network of texts [M, T] to a logit of being right, [M]: a Linear on the last token's embedding."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(True)
        self.dropout, self.linear = nn.Dropout(_DROPOUT), nn.Linear(width, 1)

    def forward(self, texts: Tensor) -> Tensor:
        last = torch.stack([torch.arange(len(texts), device=texts.device), (texts != PADDING).sum(1) - 1], 1)
        logits: Tensor = self.linear(self.dropout(look(self.network, texts, last).embedding.float()))
        return logits[:, 0]


def trained_critic(
    network: nn.Module, texts: Tensor, is_right: Tensor, epochs: int, learning_rate: float, seed: int
) -> Critic:
    """Train a critic on texts [M, T] with their labels [M], by binary cross-entropy."""
    first = torch.zeros(1, 2, dtype=torch.int64, device=texts.device)
    with torch.no_grad(), evaluating(network):
        width = look(network, texts[:1], first).embedding.shape[1]
    with drawn_from(derive_seed(seed, "critic")), torch.enable_grad():
        critic = Critic(network, width).to(texts.device).train()
        optimizer = torch.optim.AdamW(critic.parameters(), lr=learning_rate)
        for _ in range(epochs):
            for few in torch.split(torch.randperm(len(texts)).to(texts.device), _BATCH):
                optimizer.zero_grad(set_to_none=True)
                loss = F.binary_cross_entropy_with_logits(critic(texts[few]), is_right[few].float())
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return critic.eval()


@torch.no_grad()
def scores(critic: Critic, texts: Tensor) -> Tensor:
    """Return the probability of each text [M, T] to be right, [M]."""
    return torch.cat([critic(few).sigmoid() for few in torch.split(texts, _AT_ONCE)])


def threshold_for(recall: float, found: Tensor, is_right: Tensor) -> float:
    """Return the highest threshold that keeps at least this share of the right ones among scores [M]; 0 at recall 1."""
    right = found[is_right].sort(descending=True).values
    if recall >= 1 or not len(right):
        return 0.0
    return float(right[max(0, math.ceil(recall * len(right)) - 1)])
