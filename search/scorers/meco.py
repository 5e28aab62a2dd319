"""MeCo: whether some channel of a random network's feature maps is a mixture of the others, for one image."""

# C channels, P positions, T tokens, D width

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.network import Initialisation, Normalize, look
from pipeline.task import PADDING
from search.scorers.base import Scorer, Student

INPUTS = 8  # that MecoBlocks takes the positions of
LEAST = 1e-4  # its e: smallest eigenvalues below differ by rounding


class Meco(Scorer):
    """Sum over modules of the smallest eigenvalue of the correlation of the channels of what the module gives out.

    Jiang, Wang and Bie 2023, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
    Correlation", NeurIPS 2023. As in the official code every module of the tree counts, containers too, and
    undefined correlations (a constant channel) are 0. It runs the network on the first image of the batch alone,
    as the title says; the official code draws noise where it is told to.

    Tokens [T, D] are T positions of D channels; token ids are cut behind the last that is not padding. With C >= P
    the correlation is singular and its smallest eigenvalue 0 whatever the network does, so the score is NaN where
    that is so of every module: a transformer wider than its sequences are long.
    """

    name: ClassVar[str] = "meco"
    initialisation: ClassVar[Initialisation | None] = "kaiming"

    def __call__(self, student: Student) -> float:
        assert student.network is not None
        outputs: list[Tensor] = []
        with torch.no_grad(), _recorded(student.network, outputs):
            look(student.network.train(), _without_padding(self.context.batch.inputs[:1]))
        maps = [o[0].flatten(1) if o.dim() == 4 else o[0].T for o in outputs if o.dim() in (3, 4)]
        if not any(len(rows) < rows.shape[1] for rows in maps):
            return math.nan
        return sum(map(smallest_eigenvalue, maps))


def _without_padding(inputs: Tensor) -> Tensor:
    if inputs.is_floating_point():
        return inputs
    places = (inputs[0] != PADDING).nonzero()
    return inputs[:, : int(places.max()) + 1] if len(places) else inputs[:, :1]


def smallest_eigenvalue(features: Tensor) -> float:
    """Of the Pearson correlation of the rows of [C, P]; features are [C, H, W]."""
    rows = features.flatten(1).double()
    if rows.shape[0] == 1 or rows.shape[1] == 1:  # one channel correlates with itself, one position with nothing
        return float(rows.shape[1] > 1)
    return float(torch.linalg.eigvalsh(torch.corrcoef(rows).nan_to_num(0, 0, 0))[0])


class MecoBlocks(Scorer):
    """ln(e + mean over blocks of the smallest eigenvalue of the correlation of the channels of the block's output).

    Ours, after MeCo: over blocks rather than all modules, so that it does not depend on how a network is cut into
    modules; their mean, so that it does not count them; over the positions of 8 inputs, which is less noisy than
    one. What goes into the first block is no block's output. Of an identity among blocks it says what the block
    before it did.
    """

    name: ClassVar[str] = "meco_blocks"
    initialisation: ClassVar[Initialisation | None] = "kaiming"
    needs_blocks: ClassVar[bool] = True

    def __call__(self, student: Student) -> float:
        outputs = [block[:INPUTS].movedim(1 if block.dim() == 4 else 2, 0) for block in student.blocks[1:]]
        found = [smallest_eigenvalue(output) for output in outputs]
        return math.log(LEAST + sum(found) / len(found)) if found else math.nan


@contextmanager
def _recorded(network: nn.Module, outputs: list[Tensor]) -> Iterator[None]:
    """`Normalize` stands for the data's preparation, which is no part of the networks of the paper."""
    modules = [module for module in network.modules() if not isinstance(module, Normalize)]
    handles = [module.register_forward_hook(lambda module, given, output: outputs.append(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
