"""Direct preference optimisation of a copy of a language model (Rafailov et al. 2023, arXiv:2305.18290, equation 7)."""

# B pairs, T tokens, R rows

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.training.exposure import answer_losses


def aligned(
    network: nn.Module,
    chosen: Tensor,
    rejected: Tensor,
    *,
    beta: float,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> nn.Module:
    """Return a copy that prefers chosen [N, T] to rejected [N, T] more than the network does; 0 epochs: its equal."""
    made = copy.deepcopy(network).requires_grad_(True)
    optimizer = torch.optim.AdamW(made.parameters(), lr=learning_rate, weight_decay=0.0)
    with evaluating(network, made), torch.enable_grad():
        for epoch in range(epochs):
            order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(derive_seed(seed, epoch)))
            for few in torch.split(order, batch_size):
                at = few.to(chosen.device)
                optimizer.zero_grad(set_to_none=True)
                preference_loss(made, network, chosen[at], rejected[at], beta).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return made.eval().requires_grad_(False)


def preference_loss(network: nn.Module, reference: nn.Module, chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (log-ratio of chosen - log-ratio of rejected)), the mean over pairs [B, T]."""
    with torch.no_grad():
        before = answer_losses(reference, rejected) - answer_losses(reference, chosen)
    now = answer_losses(network, rejected) - answer_losses(network, chosen)
    return -F.logsigmoid(beta * (now - before)).mean()
