"""Does the stage `baselines` tell a worthless teacher from a good one? Runs of tiny digits up to that stage.

    python benchmarks/worth.py random [--runs 20] [--out FOLDER]
    python benchmarks/worth.py good [--runs 5] [--labels 150] [--out FOLDER]

`random`: the teacher was never trained, another one in each run; nothing may be added in 19 of 20. `good`: the teacher
learned all training images of the digits; the student has them too, but the labels of a few alone. Each run prints its
sentence, and goes into FOLDER/worth_CASE.csv; runs that are there are not repeated. Exit code 1: a case is not told as
it should be.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from edgestill.flows.chain import stages_of
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.progress import Silent
from edgestill.flows.runner import Runner, new_run
from edgestill.flows.stages.baselines.tested import worth_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import BaselinesResult, Results, Worth
from edgestill.flows.wording.worth import worth_sentence
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers import TeacherConfig, build_teacher, make_teacher
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

_TEACHER = TeacherConfig(architecture="resnet8")
_COMMON = (
    "device.threads=1", "teacher.architecture=resnet8", "teacher.check=off", "search.workers=1",
    "search.space.widths=[[4,6],[8],[16]]", "search.space.blocks=[[1],[1],[1]]", "search.scorer=params",
    "search.strategy=evolution", "search.baselines=[]", "search.shortlist=2", "search.tournament.epochs=1",
    "search.draws=1", "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70", "baselines.budget=1000", "distill.training.patience=0",
)  # fmt: skip
_SETTINGS = {
    "random": ("distill.training.epochs=10", "distill.training.batch_size=64", "data.limit=500", "tune.trials=3",
               "tune.epochs=4"),
    "good": ("distill.training.epochs=15", "tune.enabled=false", "data.validation_fraction=0.3"),
}  # fmt: skip
_SKIPPED = ("export", "qat", "profile", "report")
_REHEARSAL = "edgestill.flows.stages.data.rehearse_export"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(_SETTINGS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--labels", type=int, default=150, help="labels in `good`, with those for validation")
    parser.add_argument("--out", type=Path, default=Path())
    given = parser.parse_args()
    path, signs = given.out / f"worth_{given.case}.csv", list[int]()
    known = {row["seed"]: row for row in _rows(path)}
    for seed in range(given.first, given.first + given.runs):
        row = known.get(str(seed)) or _added(path, seed, _run(given.case, seed, given.labels, given.out))
        signs.append(int(row["sign"]))
        print(f"{seed}: {row['sentence']}", flush=True)
    added = sum(sign > 0 for sign in signs)
    print(f"\nthe teacher is told as adding something in {added} of {len(signs)} runs")
    return int(added > len(signs) / 20 if given.case == "random" else added < len(signs))


def _run(case: str, seed: int, labels: int, out: Path) -> dict[str, Any]:
    """Run the stages up to the baselines, and compare on test as the report does."""
    with tempfile.TemporaryDirectory() as folder:
        data = _few_labels(Path(folder), seed, labels) if case == "good" else ()
        weights = _random_teacher(Path(folder), seed) if case == "random" else _good_teacher(out)
        settings = [*_COMMON, *_SETTINGS[case], *data, f"teacher.weights={weights}", f"seed={seed}"]
        config = load_config(preset="digits", settings=settings)
        with new_run(config, Path(folder)) as run, patch(_REHEARSAL, lambda *given: None):  # nothing is exported
            found, worth = _compared(run, config)
    gain = worth.gains["no_teacher"]
    figures = {arm.name: arm.accuracies for arm in worth.arms}
    return {
        "sign": gain.sign,
        "taught": f"{np.mean(figures['recipe']):.4f}",
        "alone": f"{np.mean(figures['no_teacher']):.4f}",
        "difference": f"{gain.value:.4f}",
        "low": f"{gain.interval[0]:.4f}",
        "high": f"{gain.interval[1]:.4f}",
        "seeds": gain.seeds,
        "n": worth.n,
        "seconds": f"{found.seconds:.0f}",
        "sentence": worth_sentence(found, worth),
    }


def _compared(run: RunDir, config: RunConfig) -> tuple[BaselinesResult, Worth]:
    runner, results = Runner(run, config, Silent(), lambda name, work: work()), Results()
    for stage in stages_of(config):
        if stage.name not in _SKIPPED:
            result = runner(stage, results)
            results.add(stage.name, result, stage.sentence(result))
    test = load_test(config.read_data, config.seed)
    worth = worth_of(StageContext(run, config, lambda *tick: None), results, test)
    assert worth is not None
    return results.of(BaselinesResult), worth


def _random_teacher(folder: Path, seed: int) -> Path:
    """Write the weights of a teacher that learned nothing."""
    task, path = load_splits(DigitsConfig(), 0).task, folder / "teacher.safetensors"
    with drawn_from(derive_seed(seed, "teacher")):
        path.write_bytes(weights_bytes(build_teacher(_TEACHER, task), make_teacher(_TEACHER).metadata(task)))
    return path


def _good_teacher(folder: Path) -> Path:
    """Train a teacher on all training images of the digits, once for all runs."""
    path = (folder / "worth_teacher.safetensors").absolute()
    if not path.exists():
        splits, augment = load_splits(DigitsConfig(), 0), load_config(preset="digits").data.augment
        with drawn_from(derive_seed(0, "teacher")):
            network = build_teacher(_TEACHER, splits.task)
        fit(
            network, Supervised(), splits.train, splits.validation, TrainingConfig(epochs=30), seed=0,
            device=torch.device("cpu"), augmentation=Augmentation(augment),
        )  # fmt: skip
        path.write_bytes(weights_bytes(network, make_teacher(_TEACHER).metadata(splits.task)))
    return path


def _few_labels(folder: Path, seed: int, count: int) -> tuple[str, ...]:
    """Write the digits with the labels of a few training images, drawn by seed; return the settings."""
    data = DigitsConfig()
    train, test = load_splits(data, 0).train, load_test(data, 0)
    order = np.random.default_rng(seed).permutation(len(train))
    images, test_images = train.images.numpy()[order, 0], test.images.numpy()[:, 0]
    np.savez(
        folder / "few.npz", x_train=images[:count], y_train=train.targets.numpy()[order[:count]],
        x_unlabelled=images[count:], x_test=test_images, y_test=test.targets.numpy(),
    )  # fmt: skip
    return (f"data={{name: npz, path: {folder / 'few.npz'}}}",)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _added(path: Path, seed: int, row: dict[str, Any]) -> dict[str, Any]:
    whole, is_new = {"seed": seed, **row}, not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(whole))
        if is_new:
            writer.writeheader()
        writer.writerow(whole)
    return whole


if __name__ == "__main__":
    sys.exit(main())
