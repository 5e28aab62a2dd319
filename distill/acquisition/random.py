"""Examples drawn at random: the baseline of every other acquisition function."""

from typing import ClassVar

import torch
from torch import Tensor

from edgestill.distill.acquisition.base import Acquisition, Outlook
from edgestill.distill.methods.facts import Evidence


class Random(Acquisition):
    """Each example of the pool is as likely as any other."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "a baseline without a paper, 2026"
    evidence: ClassVar[Evidence] = "ours"

    def choose(self, outlook: Outlook, count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(outlook.probabilities), generator=generator)[:count]
