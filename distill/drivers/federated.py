"""Federated: clients learn from data of their own and answer a public pool; their mixture teaches the student.

The rounds run on Flower (docs/howto/federated.md), in this process or, with `answers`, elsewhere before the run. The
clients' networks may differ: they exchange answers, and neither data nor weights.
Nothing here measures what answers tell about the data that they were learnt from.
"""

# M examples of the public pool, K classes

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers.base import Driver, DriverConfig, Learn, Lesson
from edgestill.distill.federation.answers_file import read_answers
from edgestill.distill.federation.apps import make_client, make_server
from edgestill.distill.federation.client import Client, ClientTraining
from edgestill.distill.federation.flower import lacking
from edgestill.distill.federation.one_process import make_context, make_grid, weights_in
from edgestill.distill.federation.partition import Division, partition
from edgestill.distill.federation.rounds import Federation, Progress, federate
from edgestill.distill.federation.strategies import STRATEGIES, Answers
from edgestill.distill.federation.strategies.choice import AnyStrategyConfig
from edgestill.distill.federation.strategies.edgefd import EdgeFDConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.data.teacher_cache import split_digest
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.frozen import GivenPath, derive_seed, existing_file
from edgestill.pipeline.teachers.outputs import OutputsNetwork
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.metrics import evaluate

_MOST_TOLD = 10  # clients with figures of their own


class FederatedConfig(DriverConfig):
    """Clients that teach one student through their answers to a public pool."""

    name: Literal["federated"] = "federated"
    strategy: AnyStrategyConfig = Field(
        EdgeFDConfig(), description=f"how answers are chosen and mixed; one of {', '.join(STRATEGIES)}"
    )
    clients: int = Field(5, ge=2, le=1000, description="number of clients that the training examples are divided among")
    division: Division = Field(
        "dirichlet", description="of the training examples: even, dirichlet (by alpha), or class (a class a client)"
    )
    alpha: float = Field(0.1, gt=0, le=1e6, description="of the Dirichlet division; small ones give few classes each")
    pool: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="share of the training examples that become the public pool, without their labels, where the data "
        "have none in data.unlabelled",
    )
    rounds: int = Field(5, ge=1, le=10_000, description="number of rounds of training and answering")
    students: Literal["different", "winner"] = Field(
        "different", description="the clients' networks: points of the search space drawn by seed, or the winner's"
    )
    training: ClientTraining = ClientTraining()
    largest_logit: float = Field(1000.0, gt=0, description="answers with a logit beyond it are left out")
    deadline_s: float = Field(
        600.0, gt=0, description="seconds that a round of Flower's processes waits; in one process nobody is late"
    )
    answers: GivenPath | None = Field(
        None, description="answers.npz of a federation that ran in Flower's processes; null runs it in this one"
    )

    @property
    def gives(self) -> frozenset[Part]:
        return frozenset({"logits"})

    @property
    def goes_on(self) -> bool:
        return False

    @field_validator("answers")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else existing_file(path, info)

    @model_validator(mode="after")
    def _can_run(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get("check_files") and self.answers is None and (advice := lacking()):
            raise ValueError(advice)
        return self


class Federated(Driver):
    """One lesson on the public pool, taught by the mixture of the clients' answers after the last round."""

    name: ClassVar[str] = "federated"
    paper: ClassVar[str] = "after Mujtaba et al. 2025, arXiv:2508.14769"
    Config: ClassVar[type[DriverConfig]] = FederatedConfig
    config: FederatedConfig

    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        owned, pool = owned_and_pool(splits, self.config.pool, self.room.seed("pool"))
        if self.config.answers is None:
            answers, measures = self._in_one_process(splits, owned, pool)
        else:
            answers, measures = read_answers(self.config.answers, pool, splits.task.num_classes), {}
        if len(answers.index) < 2:
            raise DataError(f"the clients answered {len(answers.index)} of the pool's {len(pool):,} examples")
        known = pool.select(answers.index)
        mixture = OutputsNetwork.on(known, answers.logits)
        # the answers are those to the pool's examples as they are
        taught = replace(splits, train=replace(known, role="train"), augment=AugmentConfig())
        found = learn(Lesson("", mixture, splits=taught))
        measures |= {"federated.pool": float(len(pool)), "federated.pool_answered": len(answers.index) / len(pool)}
        return found._replace(measures=found.measures | measures)

    def _in_one_process(self, splits: Splits, owned: ImageSplit, pool: ImageSplit) -> tuple[Answers, dict[str, float]]:
        clients = self._clients(owned, pool)
        saved = self.room.saved() or {"progress": Progress().state(), "weights": {}}
        contexts = {node: make_context(node, saved["weights"].get(str(node))) for node in clients}
        app = make_client(lambda context: clients[context.node_id])
        grid = make_grid(dict.fromkeys(clients, app), contexts)
        ended: list[Progress] = []

        def save(progress: Progress) -> None:
            weights = {str(node): weights_in(context) for node, context in contexts.items()}
            kept = {node: tensors for node, tensors in weights.items() if tensors is not None}
            self.room.save({"progress": progress.state(), "weights": kept})
            self.room.tick(len(progress.rounds), self.config.rounds, f"{progress.rounds[-1].known:,} answers known")

        def main(grid: Any, context: Any) -> None:
            start = Progress.of(saved["progress"])
            federation = make_federation(self.config, splits, pool)
            ended.append(federate(grid, federation, progress=start, save=save, tell=self.room.tell))

        make_server(main)(grid, make_context(0))
        (progress,) = ended
        for node, client in clients.items():
            if (weights := weights_in(contexts[node])) is not None:
                client.student.load_state_dict(weights)
        assert progress.fused is not None, "or it would have failed"
        return progress.fused.shipped, self._measures(progress, clients, splits)

    def _clients(self, owned: ImageSplit, pool: ImageSplit) -> dict[int, Client]:
        """Make the clients by number, from 1."""
        config, room = self.config, self.room
        divided = partition(owned.targets, config.clients, config.division, config.alpha, room.seed("division"))
        students = room.students(config.clients, config.students == "different")
        return {
            n: Client(student, owned.select(part), pool, derive_seed(room.seed("client"), n), room.device)
            for n, (student, part) in enumerate(zip(students, divided, strict=True), 1)
        }

    def _measures(self, progress: Progress, clients: dict[int, Client], splits: Splits) -> dict[str, float]:
        told = [one for finished in progress.rounds for one in finished.clients]
        scores = {
            n: evaluate(client.student, splits.validation, self.room.device).accuracy for n, client in clients.items()
        }
        found = {
            "federated.bytes_to_a_client_a_round": sum(one.sent_bytes for one in told) / len(told),
            "federated.bytes_from_a_client_a_round": sum(one.received_bytes for one in told) / len(told),
            "federated.left_out": float(sum(one.wrong is not None for one in told)),
            "federated.clients_validation": float(np.mean(list(scores.values()))),
        }
        for n in list(clients)[:_MOST_TOLD]:
            mine = [one for one in told if one.client == n]
            found[f"client_{n}.examples"] = float(len(clients[n].own))
            found[f"client_{n}.bytes_sent"] = float(sum(one.received_bytes for one in mine))
            found[f"client_{n}.bytes_received"] = float(sum(one.sent_bytes for one in mine))
            found[f"client_{n}.validation"] = scores[n]
        return found


def owned_and_pool(splits: Splits, share: float, seed: int) -> tuple[ImageSplit, ImageSplit]:
    """Return the training examples that clients own and the public pool, which has no labels.

    Raises:
        DataError: the pool would have fewer than two examples.
    """
    pool = splits.pool
    owned = splits.train.labelled()
    if pool is None:
        order = torch.randperm(len(owned), generator=torch.Generator().manual_seed(derive_seed(seed, "pool")))
        count = round(share * len(owned))
        drawn, rest = order[:count], order[count:]
        pool, owned = owned.select(drawn.sort().values), owned.select(rest.sort().values)
    if len(pool) < 2:
        raise DataError(f"the public pool has {len(pool)} examples; raise distill.driver.pool or give data.unlabelled")
    return owned, replace(pool, targets=torch.full_like(pool.targets, UNLABELLED), role="")


def make_federation(config: FederatedConfig, splits: Splits, pool: ImageSplit) -> Federation:
    """Put together the strategy and the settings of the server's rounds.

    Raises:
        ConfigError: the strategy compares the pixels of a task that has none.
    """
    strategy = STRATEGIES[config.strategy.name](config.strategy)
    if strategy.reads == "pixels" and splits.task.kind != "image":
        raise ConfigError(["distill.driver.strategy.features: texts have no pixels; set it to embedding"])
    return Federation(
        strategy=strategy,
        training=config.training,
        rounds=config.rounds,
        pool=len(pool),
        pool_digest=split_digest(pool),
        classes=splits.task.num_classes,
        largest_logit=config.largest_logit,
        deadline_s=config.deadline_s,
    )
