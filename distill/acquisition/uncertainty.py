"""Examples that the student is least sure of, by entropy or by margin."""

from typing import ClassVar

import torch
from torch import Tensor

from edgestill.distill.acquisition.base import Acquisition, Outlook, largest, margins
from edgestill.distill.methods.facts import Evidence


class Entropy(Acquisition):
    """Largest entropy -sum_k p_k log p_k of the student's probabilities."""

    name: ClassVar[str] = "entropy"
    paper: ClassVar[str] = "Holub, Perona, Burl 2008, Entropy-based active learning for object recognition"
    evidence: ClassVar[Evidence] = "ours"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        p = outlook.probabilities
        return largest(-torch.special.xlogy(p, p).sum(1), count)


class Margin(Acquisition):
    """Smallest distance between the two largest probabilities of the student."""

    name: ClassVar[str] = "margin"
    paper: ClassVar[str] = "Scheffer, Decomain, Wrobel 2001, Active hidden Markov models for information extraction"
    evidence: ClassVar[Evidence] = "ours"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        return largest(-margins(outlook.probabilities), count)
