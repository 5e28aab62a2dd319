"""A client's part of a round: it learns the answers that it was sent, then its own labels, and answers the pool."""

# M examples of the public pool, N own examples, K classes, F numbers an example

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.federation.strategies.base import Answers, Known, Strategy
from edgestill.distill.losses import softened, softened_kl
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.frozen import Frozen, derive_seed
from edgestill.pipeline.networks.network import evaluating, look
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Objective, Supervised


class ClientTraining(Frozen):
    """A client's training in each round."""

    local_epochs: int = Field(3, ge=1, le=10_000, description="epochs a round on a client's own labels")
    taught_epochs: int = Field(3, ge=1, le=10_000, description="epochs a round on the answers that a client was sent")
    batch_size: int = Field(32, ge=2, le=65_536, description="examples a step")
    learning_rate: float = Field(0.02, gt=0, le=100, description="highest learning rate of each of the two trainings")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay")
    temperature: float = Field(2.0, gt=0, le=100, description="temperature (T) of the answers and of the student")

    def phase(self, epochs: int) -> TrainingConfig:
        """Settings of one of the two trainings."""
        return TrainingConfig(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_epochs=0.0,
        )


@dataclass(frozen=True)
class Client:
    """An owner of data.

    Args:
        student: its own network, of any architecture; trained in place.
        own: its examples, all with labels.
        pool: the public examples, in the order that all clients and the server share.
    """

    student: nn.Module
    own: ImageSplit
    pool: ImageSplit
    seed: int
    device: torch.device

    def learn(self, number: int, taught: Answers | None, training: ClientTraining) -> None:
        """Train for round `number`: on the answers by T^2 KL, where there are some, then on the own labels."""
        if taught is not None and len(taught.index) > 1:
            sure = taught.logits.argmax(1)  # the epoch that agrees best with the answers stays
            pool = replace(self.pool.select(taught.index), targets=sure)
            by_answers = Taught(taught.logits, training.temperature)
            self._fit(by_answers, pool, training.phase(training.taught_epochs), "taught", number)
        self._fit(Supervised(), self.own, training.phase(training.local_epochs), "own", number)

    def _fit(self, objective: Objective, split: ImageSplit, config: TrainingConfig, part: str, number: int) -> None:
        seed = derive_seed(self.seed, part, number)
        fit(self.student, objective, split, split, config, seed=seed, device=self.device)

    def answer(self, number: int, strategy: Strategy) -> Answers:
        """Answer the pool's examples that the strategy chooses."""
        self.student.to(self.device)
        if not strategy.reads:
            return Answers(torch.arange(len(self.pool)), self._read(self.pool, "logits"))
        own, pool = (self._read(split, strategy.reads) for split in (self.own, self.pool))
        known = Known(own, self.own.targets.cpu(), pool)
        index = strategy.answered(known, derive_seed(self.seed, "answered", number)).nonzero().squeeze(1)
        return Answers(index, self._read(self.pool, "logits")[index])

    def _read(self, split: ImageSplit, part: Literal["pixels", "embedding", "logits"]) -> Tensor:
        """Read pixels, embedding or logits of a split's examples, [N, F] float32 on the CPU."""

        def parts() -> Iterator[Tensor]:
            for batch in split.batches(512, self.device):
                found = batch.inputs if part == "pixels" else getattr(look(self.student, batch.inputs), part)
                yield found.flatten(1).float().cpu()

        with evaluating(self.student), torch.no_grad():
            return torch.cat(list(parts()))


class Taught(Objective):
    """T^2 KL of the student's answers from those that were sent; row n of these is example n of the training split."""

    def __init__(self, logits: Tensor, temperature: float) -> None:
        self._logits, self._temperature = logits, temperature

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        target = softened(self._logits[batch.index.cpu()].to(batch.inputs.device), self._temperature)
        return {"kl": softened_kl(network(batch.inputs), target, self._temperature).mean()}
