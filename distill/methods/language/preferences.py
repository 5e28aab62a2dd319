"""Batches of preferences: texts with right answers, and behind them others whose answers are not to be imitated."""

# B texts, T tokens, R rows

import torch
from torch import Tensor

from edgestill.pipeline.data.sequences import Sequences, batch_of_texts
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError


def joined(chosen: Batch, others: Tensor) -> Batch:
    """Append texts [B, T] to a batch; their rows are UNLABELLED, and none of the split's."""
    behind = batch_of_texts(others)
    assert chosen.rows is not None
    assert behind.rows is not None
    moved = behind.rows + torch.tensor([len(chosen.inputs), 0], device=behind.rows.device)
    return Batch(
        torch.cat([chosen.inputs, behind.inputs]),
        torch.cat([chosen.targets, torch.full_like(behind.targets, UNLABELLED)]),
        torch.cat([chosen.index, behind.index]),
        view=None,
        rows=torch.cat([chosen.rows, moved]),
    )


def shares(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return factors [R] that make a mean over all rows the mean over the chosen texts' rows, and over the others'."""
    is_chosen = (batch.targets != UNLABELLED).float()
    is_other, count = 1 - is_chosen, float(len(is_chosen))
    return is_chosen * (count / is_chosen.sum().clamp_min(1)), is_other * (count / is_other.sum().clamp_min(1))


def rejected_of(train: ImageSplit, name: str) -> Tensor:
    """Return the training texts with worse answers, [N, T].

    Raises:
        ConfigError: there are none.
    """
    if not isinstance(train, Sequences) or train.rejected is None:
        raise ConfigError(
            [
                f"method {name!r} learns from pairs of a better and a worse answer, and these data have none; set "
                "data.rejected_key to the key of the worse answer, or data.rejected of the data set strings"
            ]
        )
    return train.rejected
