"""NASWOT score: high if a random network's ReLU patterns tell the inputs of a batch apart."""

import math
from typing import ClassVar

import torch

from edgestill.pipeline.networks.network import Initialisation
from edgestill.search.scorers.base import Scorer, Student


class Nwot(Scorer):
    """log |K|, K_ij = number of units with the same ReLU state for inputs i and j.

    Mellor, Turner, Storkey and Crowley 2021, "Neural Architecture Search without Training", arXiv:2006.04647.
    Two inputs with the same pattern make K singular and the score minus infinity, counted as no score.
    """

    name: ClassVar[str] = "nwot"
    initialisation: ClassVar[Initialisation | None] = "kaiming"
    needs_codes: ClassVar[bool] = True

    def __call__(self, student: Student) -> float:
        size = len(self.context.batch.targets)
        kernel = torch.zeros(size, size, dtype=torch.float64)
        for code in student.codes:
            active = code.float()
            both = active @ active.T
            on = active.sum(1)
            # Equal states = both on + both off; counts below 2^24 are exact in float32.
            kernel += (2 * both + code.shape[1] - on[:, None] - on[None, :]).double()
        # Rounding hides half of the singular kernels from the determinant; equal inputs agree in every unit.
        if (kernel == kernel.diagonal()).sum() > size:
            return -math.inf
        return float(torch.linalg.slogdet(kernel).logabsdet)
