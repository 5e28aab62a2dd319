"""KnFu: each client is taught a mixture of its own, of the clients whose knowledge is close to its own.

After the abstract of arXiv:2403.11892 and its step list; beta = 10 is the paper's, the weight's formula is ours.
"""

# n clients, M examples of the pool, K classes

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.federation.strategies.base import Answers, Fused, Strategy, StrategyConfig
from edgestill.distill.losses import kl
from edgestill.distill.methods.facts import Evidence


class KnFuConfig(StrategyConfig):
    """Mixtures that are each client's own."""

    name: Literal["knfu"] = "knfu"
    beta: float = Field(
        10.0,
        ge=0,
        le=1e6,
        description="how strongly clients of other knowledge are left out; 0 averages all, the largest leaves oneself",
    )


class KnFu(Strategy):
    """The target of client n is sum_m w_nm p_m(x), w_nm ~ exp(-beta KL(q_n || q_m)), q_m the mean of p_m on the pool.

    The mixtures are the clients' own, so that the student which ships is taught their mean (ours).
    """

    name: ClassVar[str] = "knfu"
    paper: ClassVar[str] = "after Seyedmohammadi et al. 2024, arXiv:2403.11892"
    evidence: ClassVar[Evidence] = "ours"
    Config: ClassVar[type[StrategyConfig]] = KnFuConfig
    config: KnFuConfig

    def fuse(self, answers: Mapping[int, Answers], size: int) -> Fused:
        clients = sorted(answers)
        index = answers[clients[0]].index
        assert all(torch.equal(answers[client].index, index) for client in clients), "each answers the whole pool"
        log_p = torch.stack([answers[client].logits.double().log_softmax(1) for client in clients])  # [n, M, K]
        log_w = log_weights(log_p, self.config.beta)
        mixed = [(row[:, None, None] + log_p).logsumexp(0) for row in log_w]
        taught = {client: Answers(index, logits.float()) for client, logits in zip(clients, mixed, strict=True)}
        mean = torch.stack(mixed).logsumexp(0) - torch.tensor(len(clients)).log()
        return Fused(taught, Answers(index, mean.float()))


def log_weights(log_p: Tensor, beta: float) -> Tensor:
    """Logarithms of the weights w_nm [n, n], whose rows sum to 1; from log-probabilities [n, M, K]."""
    log_q = log_p.logsumexp(1) - torch.tensor(log_p.shape[1]).log()  # of the mean over the pool
    apart = torch.stack([kl(one.expand_as(log_q), log_q) for one in log_q])
    return (-beta * apart).log_softmax(1)
