"""Does the stage `baselines` tell a worthless teacher from a good one? Runs of tiny digits up to that stage.

    python benchmarks/worth.py random [--runs 20] [--out FOLDER]
    python benchmarks/worth.py good [--runs 5] [--images 150] [--out FOLDER]

`random`: the teacher was never trained, another one in each run; nothing may be added in 19 of 20. `good`: the teacher
learned all training images of the digits, and the student has a few of them. Each run prints its sentence, and goes
into FOLDER/worth_CASE.csv; runs that are there are not repeated. Exit code 1: a case is not told as it should be.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from edgestill.pipeline.training.fit import Supervised, fit

_TEACHER = TeacherConfig(architecture="resnet8")
_COMMON = (
    "device.threads=1", "teacher.architecture=resnet8", "teacher.check=off", "search.workers=1",
    "search.space.widths=[[8],[8],[16,32]]", "search.space.blocks=[[1],[1],[1,2]]", "search.scorer=params",
    "search.strategy=evolution", "search.baselines=[]", "search.shortlist=2", "search.tournament.epochs=2",
    "search.draws=1", "tune.trials=4", "tune.epochs=6", "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70", "baselines.budget=1000", "distill.training.patience=0",
)  # fmt: skip
_SETTINGS = {
    "random": ("distill.training.epochs=12", "baselines.seeds=3"),
    "good": ("distill.training.epochs=60", "distill.training.batch_size=16", "baselines.seeds=5"),
}
_SKIPPED = ("export", "qat", "profile", "report")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(_SETTINGS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--images", type=int, default=150, help="of `good`, with those for validation")
    parser.add_argument("--out", type=Path, default=Path())
    given = parser.parse_args()
    path, signs = given.out / f"worth_{given.case}.csv", list[int]()
    known = {row["seed"]: row for row in _rows(path)}
    for seed in range(given.first, given.first + given.runs):
        row = known.get(str(seed)) or _added(path, seed, _run(given.case, seed, given.images))
        signs.append(int(row["sign"]))
        print(f"{seed}: {row['sentence']}", flush=True)
    added = sum(sign > 0 for sign in signs)
    print(f"\nthe teacher is told as adding something in {added} of {len(signs)} runs")
    return int(added > len(signs) / 20 if given.case == "random" else added < len(signs))


def _run(case: str, seed: int, images: int) -> dict[str, Any]:
    """Run the stages up to the baselines, and compare on test as the report does."""
    with tempfile.TemporaryDirectory() as folder:
        data = _few_images(Path(folder), seed, images) if case == "good" else ()
        weights = Path(folder) / "teacher.safetensors"
        weights.write_bytes(_weights(case, seed))
        settings = [*_COMMON, *_SETTINGS[case], *data, f"teacher.weights={weights}", f"seed={seed}"]
        config = load_config(preset="digits", settings=settings)
        with new_run(config, Path(folder)) as run:
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


def _weights(case: str, seed: int) -> bytes:
    """Weights of a teacher: fresh ones, or trained on all images of the digits that are not in the test split."""
    data = DigitsConfig()
    splits = load_splits(data, 0)
    with drawn_from(derive_seed(seed, "teacher")):
        network = build_teacher(_TEACHER, splits.task)
    if case == "good":
        training = TrainingConfig(epochs=30, learning_rate=0.05)
        augmentation = Augmentation(load_config(preset="digits").data.augment)
        fit(
            network, Supervised(), splits.train, splits.validation, training, seed=seed, device=torch.device("cpu"),
            augmentation=augmentation,
        )  # fmt: skip
    return weights_bytes(network, make_teacher(_TEACHER).metadata(splits.task))


def _few_images(folder: Path, seed: int, count: int) -> tuple[str, ...]:
    """Write a few of the digits' training images, by seed, with all of their test images; return the settings."""
    data = DigitsConfig()
    train, test = load_splits(data, 0).train, load_test(data, 0)
    index = np.random.default_rng(seed).permutation(len(train))[:count]
    path = folder / "few.npz"
    arrays = {"x_train": train.images.numpy()[index], "y_train": train.targets.numpy()[index]}
    arrays |= {"x_test": test.images.numpy(), "y_test": test.targets.numpy()}
    np.savez(path, **{name: array[:, 0] if name.startswith("x") else array for name, array in arrays.items()})
    return (f"data={{name: npz, path: {path}}}",)


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
