"""BADGE: gradients of the last layer, uncertain by their length and diverse by their direction.

Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds", ICLR 2020, arXiv:1906.03671, algorithm 1. As in the authors' code the longest gradient is the first choice.
PCoreSet's released file has a baseline of this name that is another method: unit vectors, chosen by greedy k-centre.
"""

# N examples, K classes, D embedding width

from typing import ClassVar

import torch
from torch import Tensor

from edgestill.distill.acquisition.base import Acquisition, Outlook
from edgestill.distill.methods.facts import Evidence


class Badge(Acquisition):
    """Draws by k-means++ among last-layer gradients g(x) = (p(x) - onehot(argmax p(x))) e(x)^T.

    Each next x has a chance in proportion to the least |g(x) - g(c)|^2 to those chosen before. The gradients
    [K, D] are never formed: <g, h> is the product of two inner products.
    """

    name: ClassVar[str] = "badge"
    paper: ClassVar[str] = "Ash et al. 2020, arXiv:1906.03671"
    evidence: ClassVar[Evidence] = "code"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        errors, embedding = last_layer_errors(outlook.probabilities), outlook.embedding
        squares = errors.square().sum(1) * embedding.square().sum(1)
        nearest, chosen = torch.full_like(squares, torch.inf), list[int]()
        for _ in range(count):
            at = _drawn(nearest, chosen, generator) if chosen else int((squares == squares.max()).nonzero()[0])
            chosen.append(at)
            products = (errors @ errors[at]) * (embedding @ embedding[at])
            nearest = torch.minimum(nearest, (squares + squares[at] - 2 * products).clamp_min(0))
            nearest[chosen] = 0
        return torch.tensor(chosen, dtype=torch.int64)


def last_layer_errors(probabilities: Tensor) -> Tensor:
    """p - onehot(argmax p), [N, K]: the gradient by the logits if the likeliest class is taken for the label."""
    errors = probabilities.clone()
    errors[torch.arange(len(errors)), probabilities.argmax(1)] -= 1
    return errors


def _drawn(chances: Tensor, chosen: list[int], generator: torch.Generator) -> int:
    """Draw a position in proportion to the chances [N]; where all are 0, one of those left."""
    if not bool((chances > 0).any()):
        chances = torch.ones_like(chances)
        chances[chosen] = 0
    return int(torch.multinomial(chances / chances.sum(), 1, generator=generator))
