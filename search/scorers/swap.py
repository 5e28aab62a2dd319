"""SWAP-Score: number of different patterns of a random network's ReLU units over a few inputs."""

# S samples, U units

import math
from typing import ClassVar

import torch

from edgestill.pipeline.networks.network import Initialisation
from edgestill.search.scorers.base import Scorer, Student

SAMPLES = 24  # a pattern is then a number that float32 holds exactly, below 2^24; smaller batches are used whole


class Swap(Scorer):
    """Number of distinct sample-wise activation patterns, the columns of the [S, U] matrix of ReLU states.

    Peng, Song, Fayek, Ciesielski and Chang 2024, "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-Fast NAS",
    arXiv:2403.04161, the SWAP-Score without its regularisation by size. U are all units, channel by position, of
    all layers together. The paper's S is the batch; it is fixed here, as the count grows with it. NaN for a network
    without such units.
    """

    name: ClassVar[str] = "swap"
    initialisation: ClassVar[Initialisation | None] = "kaiming"
    needs_codes: ClassVar[bool] = True

    def __call__(self, student: Student) -> float:
        if not student.codes:
            return math.nan
        places = torch.arange(min(SAMPLES, len(self.context.batch.targets)))
        values = (1 << places).float()
        seen = torch.zeros(1 << len(places), dtype=torch.bool)
        for code in student.codes:
            words = values.to(code.device) @ code[: len(places)].float()
            seen[words.cpu().long()] = True
        return float(seen.count_nonzero())
