"""MeCo score: low if a channel of a random network's feature maps is a mixture of the others, for one image."""

# C channels, P positions, T tokens, D width

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.network import Initialisation, Normalize, look
from edgestill.search.scorers.base import Scorer, Student

INPUTS = 8  # number of inputs of MecoBlocks
LEAST = 1e-4  # e of MecoBlocks: smallest eigenvalues below it differ by rounding


class Meco(Scorer):
    """Sum over modules of the smallest eigenvalue of the correlation of the channels of the module's output.

    Jiang, Wang and Bie 2023, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
    Correlation", NeurIPS 2023. As in the official code every module of the tree counts, containers too, and
    undefined correlations (a constant channel) are 0. It runs the network on the first image of the batch alone,
    as the title says; the official code can draw noise instead.

    Tokens [T, D] are T positions of D channels; padding at the end of token ids is cut off. With C >= P the
    correlation is singular and its smallest eigenvalue 0 for any network. If this holds for every module, as in a
    transformer wider than its sequences are long, the score is NaN. It is NaN too where a batch norm has a single value
    a channel, such as one behind the pooling, because it cannot normalise one image.
    """

    name: ClassVar[str] = "meco"
    initialisation: ClassVar[Initialisation | None] = "kaiming"

    def __call__(self, student: Student) -> float:
        assert student.network is not None
        outputs: list[Tensor] = []
        try:
            with torch.no_grad(), _recorded(student.network, outputs):
                look(student.network.train(), _without_padding(self.context.batch.inputs[:1]))
        except ValueError:  # torch's, of such a batch norm
            return math.nan
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
    """Smallest eigenvalue of the Pearson correlation of the rows of [C, P]; features are [C, H, W]."""
    rows = features.flatten(1).double()
    if rows.shape[0] == 1 or rows.shape[1] == 1:  # one channel correlates with itself, one position with nothing
        return float(rows.shape[1] > 1)
    return float(torch.linalg.eigvalsh(torch.corrcoef(rows).nan_to_num(0, 0, 0))[0])


class MecoBlocks(Scorer):
    """ln(e + mean over blocks of the smallest eigenvalue of the correlation of the channels of the block's output).

    Ours, after MeCo: over blocks rather than all modules, so that it does not depend on how a network is cut into
    modules; their mean, so that it does not count them; over the positions of 8 inputs, which is less noisy than
    one. The first block's input does not count. An identity among the blocks repeats the value of the block before
    it.
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
    """Record the output of every module but `Normalize`: the paper's networks do not prepare the data."""
    modules = [module for module in network.modules() if not isinstance(module, Normalize)]
    handles = [module.register_forward_hook(lambda module, given, output: outputs.append(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
