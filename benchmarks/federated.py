"""Federated strategies by how unlike the clients' data are: accuracy of what ships and of the clients, and bytes.

    python benchmarks/federated.py --out OUT [--seeds 5] [--clients 5] [--rounds 5] [--strategies edgefd average]
        [--divisions even dirichlet:1 dirichlet:0.1 class]

scikit-learn's digits, 8 x 8. Three tenths of the training examples become the public pool without labels; the others
are divided among the clients, whose networks have different widths. A seed decides split, division and first weights,
which all strategies share, so that differences are paired; each has Student's 95 % interval. `shipped` is the test
accuracy of a student distilled on the pool from the last mixture, `clients` the mean of the clients' own on the same
examples; bytes are a client's in a round, sent and received, by Flower's count.

Each training is kept in OUT and not repeated, so a stopped benchmark goes on; --write FILE writes the rows as csv.
"""

import argparse
import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from lib.bench import load_task, shown_command, shown_difference, spread
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers import Lesson, Room
from edgestill.distill.drivers.federated import Federated, FederatedConfig
from edgestill.distill.federation.strategies import STRATEGIES
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import canonical_json, derive_seed, digest
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.metrics import evaluate

WIDTHS = ((4, 6, 8), (6, 8, 12), (8, 8, 8), (4, 8, 16), (6, 6, 10))  # the clients' in turn; the first is what ships
CPU = torch.device("cpu")
_FIRST_SEED = 100
_SENT, _RECEIVED = "federated.bytes_from_a_client_a_round", "federated.bytes_to_a_client_a_round"


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [
        _kept(given, division, strategy, seed)
        for seed in range(_FIRST_SEED, _FIRST_SEED + given.seeds)
        for division in given.divisions
        for strategy in given.strategies
    ]
    print(_report(rows, given))
    if given.write is not None:
        write_atomic(given.write, _csv(rows).encode())


def _kept(given: argparse.Namespace, division: str, strategy: str, seed: int) -> dict[str, Any]:
    """One federation's row, from its file if there is one."""
    kind, _, alpha = division.partition(":")
    settings: dict[str, Any] = {
        "division": kind,
        "strategy": strategy,
        "clients": given.clients,
        "rounds": given.rounds,
    }
    config = FederatedConfig.model_validate(settings | ({"alpha": float(alpha)} if alpha else {}))
    path = given.out / f"{digest(config.model_dump(mode='json'), seed, given.epochs)}.json"
    if not path.exists():
        row = {"division": division, "strategy": strategy, "seed": seed} | _federated(config, seed, given)
        write_atomic(path, canonical_json(row).encode())
        print(json.dumps(row), flush=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _federated(config: FederatedConfig, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    bench = load_task("digits")(seed, Path(), given.out)
    (tested,) = bench.tests.values()
    students = [_network(bench.splits, WIDTHS[n % len(WIDTHS)], seed + n) for n in range(config.clients)]

    def learn(lesson: Lesson) -> Distilled:
        assert lesson.teacher is not None
        training = StudentTrainingConfig(epochs=given.epochs, batch_size=32, patience=0)
        own = _network(bench.splits, WIDTHS[0], seed + 1000)
        return distill(
            own, lesson.teacher, lesson.splits or bench.splits, DistillConfig(training=training), seed=seed, device=CPU
        )

    driver = Federated(config)
    driver.room = Room(
        device=CPU, seed=lambda *names: derive_seed(seed, *names), students=lambda count, different: students[:count]
    )
    found = driver.run(learn, nn.Identity(), bench.splits)
    clients = [evaluate(student, tested, CPU).accuracy for student in students]
    return {
        "shipped": 100 * evaluate(found.student, tested, CPU).accuracy,
        "clients": 100 * statistics.fmean(clients),
        "answered": found.measures["federated.pool_answered"],
        "sent": found.measures[_SENT],
        "received": found.measures[_RECEIVED],
    }


def _network(splits: Splits, widths: tuple[int, int, int], seed: int) -> CifarResNet:
    task = splits.task
    made = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
    initialise(made, "kaiming", seed)
    return made


def _report(rows: list[dict[str, Any]], given: argparse.Namespace) -> str:
    machine = describe_machine()
    lines = [
        f"`{shown_command()}`; n = {given.seeds} seeds; {machine['cpu']}, one thread",
        "",
        f"| division | strategy | shipped, % | above {given.strategies[0]} | clients, % | above {given.strategies[0]} "
        "| answered | sent, bytes | received, bytes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for division in given.divisions:
        of = {name: _column(rows, division, name) for name in given.strategies}
        lines.extend(_line(division, name, of[name], of[given.strategies[0]]) for name in given.strategies)
    return "\n".join(lines)


def _column(rows: list[dict[str, Any]], division: str, strategy: str) -> dict[str, list[float]]:
    mine = [row for row in rows if (row["division"], row["strategy"]) == (division, strategy)]
    return {key: [row[key] for row in mine] for key in ("shipped", "clients", "answered", "sent", "received")}


def _line(division: str, name: str, own: dict[str, list[float]], first: dict[str, list[float]]) -> str:
    cells = [division, name]
    for key in ("shipped", "clients"):
        cells.append(f"{statistics.fmean(own[key]):.2f} ± {spread(own[key]):.2f}")
        cells.append("" if own is first else shown_difference(own[key], first[key]))
    cells.append(f"{statistics.fmean(own['answered']):.0%}")
    cells.extend(f"{statistics.fmean(own[key]):,.0f}" for key in ("sent", "received"))
    return f"| {' | '.join(cells)} |"


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="of the student that ships")
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--divisions", nargs="+", default=["even", "dirichlet:1", "dirichlet:0.1", "class"])
    parser.add_argument("--write", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
