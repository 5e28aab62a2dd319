"""Papers' own ablations again, by sign and size, on toys: PLD, logit standardisation, and what Swing hides.

    python benchmarks/reproductions.py {pld,standardisation,swing} --data DATA --out OUT [--seeds 5]

- pld: PLD on 1,000 digits of MNIST, with the ranks weighted by the teacher's probabilities, all alike (ListMLE), and
  with the classes but the label shuffled in the teacher's answer to each image.
- standardisation: a teacher's logits times 3, plus 1. Plain KD's training is another one; with standardised logits the
  whole curve stays, but for rounding.
- swing: 16 black and white patterns with labels drawn at random stand among scikit-learn's digits, and the teacher
  learns them by heart. Exposure is of a pattern among 10,000 others under the same label (at most 13.3 bits).

A seed draws data, teacher, weights and order of the images. Differences are paired by seed, with Student's 95 %
interval. Settings are as given here, none is tuned. DATA holds mnist.npz; swing needs none. Trainings are kept in OUT
and not repeated, so a stopped benchmark goes on. Borup and Andersen's kernel ridge regression is a test
(tests/distill/test_drivers.py).
"""

import argparse
import copy
import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.bench import load_task, shown_command, shown_difference, spread
from torch import Tensor, nn

from edgestill.distill import methods
from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.methods.base import Context, Method
from edgestill.distill.methods.targets.pld import PLD
from edgestill.distill.methods.targets.swing import Swing
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.splits import Batch, ImageSplit, Splits
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import derive_seed, digest
from edgestill.pipeline.networks.network import PooledClassifier, View, evaluating, initialise
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.exposure import exposure
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")
CANARIES, CANDIDATES = 16, 10_000
PLD_CASES = {
    "`pld`": {"name": "pld", "temperature": 4.0},  # the paper's on CIFAR-100
    "equal ranks": {"name": "pld", "ranks": "equal"},
    "classes shuffled": {"name": "pld", "temperature": 4.0},
}
SWING_CASES = {
    "`kd`": {"name": "kd", "distill_weight": 1.0},
    "`swing`": {"name": "swing", "distill_weight": 1.0},
    "`swing`, rarities shuffled": {"name": "swing", "distill_weight": 1.0},
}
SHORT = 20  # epochs on MNIST, where the accuracy is not the question
DIGITS = StudentTrainingConfig(epochs=60, batch_size=32, optimizer="adamw", learning_rate=2e-3, patience=0)

Figures = dict[str, float]  # of a case: name -> value
Part = Callable[[int, argparse.Namespace], dict[str, Figures]]  # (seed, arguments) -> figures by case


class ShuffledClasses(PLD):
    """PLD where all classes but the label have changed places in the teacher's answer, by image."""

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return super().objective(teacher._replace(logits=shuffled(teacher.logits, batch)), student, batch)


def shuffled(logits: Tensor, batch: Batch) -> Tensor:
    """Change the places of all classes but the label, for an image in the same way in every epoch."""
    found = logits.clone()
    for n, (image, label) in enumerate(zip(batch.index.tolist(), batch.targets.tolist(), strict=True)):
        others = torch.tensor([k for k in range(logits.shape[1]) if k != label])
        generator = torch.Generator().manual_seed(derive_seed("shuffled", image))
        found[n, others] = logits[n, others[torch.randperm(len(others), generator=generator)]]
    return found


class ShuffledRarities(Swing):
    """Swing with the same temperatures and noises for other examples."""

    def study(self, context: Context) -> None:
        super().study(context)
        generator = torch.Generator().manual_seed(derive_seed(context.seed, "shuffled"))
        self._set(self._rarity[torch.randperm(len(self._rarity), generator=generator)], self._seed)


INSTEAD: dict[str, type[Method]] = {
    "classes shuffled": ShuffledClasses,
    "`swing`, rarities shuffled": ShuffledRarities,
}


class Perceptron(PooledClassifier):
    """Two hidden layers of the same width."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__(task.num_classes, width, task.mean, task.std)
        self.first, self.second = nn.Linear(int(np.prod(task.input_shape)), width), nn.Linear(width, width)

    def trunk(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(inputs.flatten(1)).relu()).relu()
        return features[:, :, None, None]

    def blocks(self) -> list[nn.Module]:
        return [self.first, self.second]


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    given.out.mkdir(parents=True, exist_ok=True)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    rows = [_kept(given.part, seed, given) for seed in seeds]
    print(f"    {shown_command()}\n")
    print(f"{describe_machine()['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}\n")
    print(table(rows))


def table(rows: Sequence[Mapping[str, Figures]]) -> str:
    """Mean and standard deviation of each case's figures, and the difference from the first case."""
    first, names = next(iter(rows[0])), next(iter(rows[0].values()))
    lines = ["| case |" + "".join(f" {name} | less {first}'s |" for name in names)]
    lines.append("|" + " --- |" * (1 + 2 * len(names)))
    for case in rows[0]:
        cells = [case]
        for name in names:
            own, base = ([row[one][name] for row in rows] for one in (case, first))
            cells.append(f"{statistics.fmean(own):.4g} ± {spread(own):.2g}")
            cells.append("–" if case == first else shown_difference(own, base))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _kept(part: str, seed: int, given: argparse.Namespace) -> dict[str, Figures]:
    """Figures of a part's seed; made once for the same settings."""
    settings = digest(PLD_CASES, SWING_CASES, DIGITS, SHORT, CANARIES, CANDIDATES)[:8]
    path: Path = given.out / f"{part}_{seed}_{settings}.json"
    if not path.exists():
        path.write_text(json.dumps(PARTS[part](seed, given)), encoding="utf-8")
    found: dict[str, Figures] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _taught(
    case: str, recipe: Sequence[Mapping[str, Any]], student: nn.Module, teacher: nn.Module, splits: Splits,
    training: StudentTrainingConfig, seed: int,
) -> Distilled:  # fmt: skip
    """Train a student by a recipe, where the case has its own kind of the last method in the table."""
    config = DistillConfig.model_validate({"methods": list(recipe), "training": training.model_dump()})
    name = config.methods[-1].name
    before = methods.METHODS[name]
    methods.METHODS[name] = INSTEAD.get(case, before)
    try:
        return distill(student, copy.deepcopy(teacher), splits, config, seed=seed, device=CPU)
    finally:
        methods.METHODS[name] = before


def _percent(network: nn.Module, test: ImageSplit) -> float:
    return 100 * evaluate(network, test, CPU).accuracy


def pld(seed: int, given: argparse.Namespace) -> dict[str, Figures]:
    bench = load_task("mnist_1k")(seed, given.data, given.out)
    found = {}
    for case, method in PLD_CASES.items():
        student = bench.make_student(seed)
        done = _taught(case, [method], student, bench.teacher, bench.splits, bench.training, seed)
        found[case] = {"accuracy, %": _percent(done.student, bench.tests["centred"])}
    return found


def standardisation(seed: int, given: argparse.Namespace) -> dict[str, Figures]:
    """Largest relative difference of an epoch's loss between both teachers, and the accuracies."""
    bench = load_task("mnist_1k")(seed, given.data, given.out)
    larger = copy.deepcopy(bench.teacher)
    last = larger.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        last.weight.mul_(3)
        last.bias.mul_(3).add_(1)
    found, training = {}, bench.training.model_copy(update={"epochs": SHORT})
    for name in ("kd", "logit_standardisation"):
        done = [
            _taught(name, [{"name": name}], bench.make_student(seed), teacher, bench.splits, training, seed)
            for teacher in (bench.teacher, larger)
        ]
        curves = zip(*(one.fitted.curve for one in done), strict=True)
        own, others = (_percent(one.student, bench.tests["centred"]) for one in done)
        found[f"`{name}`"] = {
            "largest change of an epoch's loss": max(abs(b.loss / a.loss - 1) for a, b in curves),
            "change of accuracy, points": abs(others - own),
        }
    return found


def swing(seed: int, given: argparse.Namespace) -> dict[str, Figures]:
    splits, test = load_splits(DigitsConfig(), seed), load_test(DigitsConfig(), seed)
    assert isinstance(splits.train.images, Tensor)
    generator = torch.Generator().manual_seed(derive_seed(seed, "canaries"))
    patterns = torch.randint(2, (CANDIDATES, 1, 8, 8), generator=generator).float()
    secrets = torch.randint(10, (CANARIES,), generator=generator)  # labels of the first patterns
    images = torch.cat([splits.train.images, patterns[:CANARIES]])
    train = ImageSplit(images, torch.cat([splits.train.targets, secrets]), "train")
    splits = dataclasses.replace(splits, train=train, digests={})
    teacher, student = (Perceptron(splits.task, width) for width in (256, 48))
    initialise(teacher, "kaiming", derive_seed(seed, "teacher"))
    training = TrainingConfig(**DIGITS.model_dump(include=set(TrainingConfig.model_fields)))
    fit(teacher, Supervised(), train, splits.validation, training, seed=seed, device=CPU)
    found = {"teacher": _told(teacher, patterns, secrets, test)}
    for case, method in SWING_CASES.items():
        initialise(student, "kaiming", seed)
        done = _taught(case, [method], student, teacher, splits, DIGITS, seed)
        found[case] = _told(done.student, patterns, secrets, test)
    return {case: found[case] for case in (*SWING_CASES, "teacher")}


@torch.no_grad()
def _told(network: nn.Module, patterns: Tensor, secrets: Tensor, test: ImageSplit) -> Figures:
    """Mean exposure of the canaries, each among all patterns under its label, and the accuracy."""
    with evaluating(network):
        losses = -network(patterns).log_softmax(1).numpy()
    bits = [exposure(losses[:, label], n) for n, label in enumerate(secrets.tolist())]
    return {"exposure, bits": statistics.fmean(bits), "accuracy, %": _percent(network, test)}


PARTS: dict[str, Part] = {"pld": pld, "standardisation": standardisation, "swing": swing}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, default=Path(), help="folder with mnist.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
