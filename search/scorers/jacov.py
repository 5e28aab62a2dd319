"""NAS-WOT's first version: high if a random network's input gradients differ between the inputs of a batch."""

# B batch, C channels, H W height and width, K classes

import math
from typing import ClassVar

import torch

from edgestill.pipeline.networks.network import Initialisation
from edgestill.search.scorers.base import Scorer, Student
from edgestill.search.scoring.observe import gradient

K = 1e-5  # the official code's, added to every eigenvalue


class Jacov(Scorer):
    """-sum_i (log(e_i + k) + 1 / (e_i + k)), e the eigenvalues of the correlation of the rows of d sum(logits) / dx.

    Mellor, Turner, Storkey and Crowley 2020, "Neural Architecture Search without Training", arXiv:2006.04647v1,
    the score of its section 3; later versions of the paper replace it by `nwot`. Here x is in raw pixels, so that
    each channel's gradients are 1 / std of those with respect to normalised pixels. For token ids x is their
    embedding, where padding has gradient 0.
    """

    name: ClassVar[str] = "jacov"
    initialisation: ClassVar[Initialisation | None] = "kaiming"
    needs_graph: ClassVar[bool] = True

    def __call__(self, student: Student) -> float:
        graph = student.graph
        assert graph is not None
        rows = gradient(graph.logits, graph.inputs, torch.ones_like(graph.logits)).flatten(1).double()
        correlation = torch.corrcoef(rows)
        if not correlation.isfinite().all():  # an input without influence has no correlation
            return math.nan
        eigenvalues = torch.linalg.eigvalsh(correlation).clamp_min(0) + K
        return -float((eigenvalues.log() + 1 / eigenvalues).sum())
