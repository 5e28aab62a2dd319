"""Greedy k-centre: each choice is the point furthest from all centres, and is a centre from then on.

k_center chooses so in the student's embedding, pcoreset in its probabilities. Sener and Savarese's code goes on from
there with an integer program, which ours leaves out. The released code of PCoreSet compares embeddings by their cosine;
ours takes the Euclidean distance of Sener and Savarese.
"""

# N points, L centres, D their width

from typing import ClassVar

import torch
from torch import Tensor

from edgestill.distill.acquisition.base import Acquisition, Outlook
from edgestill.distill.methods.facts import Evidence

_AT_ONCE = 64  # centres


class KCenter(Acquisition):
    """Coverage of the embedding: argmax_x min_c |e(x) - e(c)|_2 over labelled and chosen c (algorithm 1)."""

    name: ClassVar[str] = "k_center"
    paper: ClassVar[str] = "Sener, Savarese 2018, arXiv:1708.00489"
    evidence: ClassVar[Evidence] = "code"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        return farthest_first(outlook.embedding, outlook.labelled_embedding, count)


class PCoreSet(Acquisition):
    """Coverage of the probabilities: argmax_x min_c |p(x) - p(c)|_2 over labelled and chosen c.

    The authors mix DHO's heads by halves; here p is what the student ships, whose mix the reference split chose.
    """

    name: ClassVar[str] = "pcoreset"
    paper: ClassVar[str] = "Kang et al. 2025, arXiv:2506.00910"
    evidence: ClassVar[Evidence] = "code"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        return farthest_first(outlook.probabilities, outlook.labelled_probabilities, count)


def farthest_first(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """Choose `count` of the points [N, D], each the furthest from the centres [L, D] and from those chosen before."""
    distances, chosen = torch.full_like(points[:, 0], torch.inf), list[int]()
    for some in torch.split(centres, _AT_ONCE) if len(centres) else ():
        apart = torch.cdist(points, some, compute_mode="donot_use_mm_for_euclid_dist")  # which would round
        distances = torch.minimum(distances, apart.amin(1))
    for _ in range(count):
        at = int((distances == distances.max()).nonzero()[0])  # argmax does not promise the first of equals
        chosen.append(at)
        distances = torch.minimum(distances, (points - points[at]).norm(dim=1))
        distances[chosen] = -torch.inf
    return torch.tensor(chosen, dtype=torch.int64)
