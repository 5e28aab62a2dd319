"""Objective of a training run, as the loop sees it, and the objective of a teacher."""

# B batch, K classes

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import logits_at
from edgestill.pipeline.training.label_loss import label_loss


class Moment(NamedTuple):
    """A step of the optimizer that was taken."""

    step: int  # its number in the training, from 1, as if every epoch had all its steps
    progress: float  # share of the training's steps taken, of all its epochs
    epoch: int  # from 0
    terms: Mapping[str, Tensor]  # of its loss, without gradients
    batch: Batch  # as the objective prepared it
    network: nn.Module  # after the step


class Objective(ABC):
    """The objective of a training run, as the loop sees it. The defaults do nothing."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Parameters to train beside the network's."""
        return ()

    def order(self, epoch: int, generator: torch.Generator) -> Tensor | None:
        """Positions of an epoch's training examples in their order; None: the loop's own."""
        return None

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return named terms; their sum is minimised."""

    def backward(
        self, terms: Mapping[str, Tensor], scaled: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]
    ) -> None:
        """Put the gradient of the loss, as mixed precision scales it, into the parameters."""
        scaled(torch.stack([term.float() for term in terms.values()]).sum()).backward()  # type: ignore[no-untyped-call]

    def tick(self, moment: Moment) -> None:
        """Run after a step."""

    def end_epoch(self, epoch: int, network: nn.Module) -> None:
        """Run after an epoch, before its validation."""

    def deployable(self, network: nn.Module) -> nn.Module:
        """Return what is evaluated and shipped: inputs to logits [B, K]."""
        return network

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Supervised(Objective):
    """Cross-entropy on the labels, the objective of a teacher."""

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        logits = logits_at(network, batch.inputs, batch.rows)
        if batch.mixed is None and batch.weight is None:
            return {"cross_entropy": F.cross_entropy(logits, batch.targets)}
        losses = label_loss(logits, batch)
        return {"cross_entropy": (losses if batch.weight is None else batch.weight * losses).mean()}
