"""Trials a minute beside other tools': edgestill's tuning, Optuna with its own storages, and Ray Tune.

    python benchmarks/peers/trials.py --trials 40 --repeats 3 [--epochs 9] [--epoch-s 0] [--only NAME …] [--out FILE]

Every tool tunes the same four hyperparameters of the same landscape by TPE, with successive halving from the third
epoch on, and is told of every epoch. An epoch takes `--epoch-s` seconds of sleep; 0 leaves what a tool costs by itself.
Each study begins anew, in this process, in a folder of its own; the tools take turns in a random order.

- edgestill: `distill.tune.tune`, as a run calls it: a study in a SQLite file that survives a kill in any trial.
- edgestill, batches: the same in batches of `--batch`, as workers of an engine are given them, without workers.
- optuna, sqlite: `study.optimize` with Optuna's RDBStorage on a SQLite file.
- optuna, journal: the same with its JournalStorage on a file.
- optuna, memory: the same without a storage; nothing survives.
- ray: `ray.tune.Tuner` with OptunaSearch and ASHAScheduler, a process a trial; starting Ray is not counted.

The trials of two tools are not the same ones, as each draws its own. A trial that is stopped early counts as one, and
the epochs a trial took are told, as a tool that stops more has less to do.
"""

import argparse
import functools
import json
import logging
import math
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.elsewhere.stretch import Reached, Stretch, TrainAtOnce
from edgestill.distill.tune import search_ranges, tune
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.training.state import EpochRecord

RATE, DECAY, TEMPERATURE, WEIGHT = (
    "training.learning_rate",
    "training.weight_decay",
    "kd.temperature",
    "kd.distill_weight",
)
MIN_EPOCHS, FACTOR, SEED = 3, 3, 0


class Setting(NamedTuple):
    trials: int
    epochs: int
    epoch_s: float
    batch: int


class Tuned(NamedTuple):
    """A study that was done: its seconds, its best value, and the epochs of all its trials."""

    seconds: float
    best: float
    epochs: int


Tool = Callable[[Setting, Path, int], Tuned]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--epoch-s", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    setting = Setting(arguments.trials, arguments.epochs, arguments.epoch_s, arguments.batch)
    machine = describe_machine()
    print(json.dumps(machine), flush=True)
    found: dict[str, list[Tuned]] = {name: [] for name in arguments.only}
    rng = random.Random(SEED)
    for turn in range(arguments.repeats):
        for name in rng.sample(arguments.only, len(arguments.only)):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                found[name].append(TOOLS[name](setting, Path(folder), turn))
    print(table(found, setting))
    if arguments.out:
        written = {"machine": machine, "setting": setting._asdict(), "studies": found}
        arguments.out.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0


def table(found: dict[str, list[Tuned]], setting: Setting) -> str:
    ours = statistics.median(minute(tuned, setting) for tuned in next(iter(found.values())))
    first = next(iter(found))
    rows = [
        f"| tool | trials a minute | n, range | beside {first} | epochs a trial | best |",
        "|---|---|---|---|---|---|",
    ]
    for name, studies in found.items():
        each = [minute(tuned, setting) for tuned in studies]
        middle = statistics.median(each)
        epochs = statistics.fmean(tuned.epochs for tuned in studies) / setting.trials
        best = statistics.fmean(tuned.best for tuned in studies)
        spread = f"{len(each)}, {min(each):.0f} to {max(each):.0f}"
        rows.append(f"| {name} | {middle:.0f} | {spread} | {middle / ours:.2f} | {epochs:.1f} | {best:.4f} |")
    return "\n".join(rows)


def minute(tuned: Tuned, setting: Setting) -> float:
    return 60 * setting.trials / tuned.seconds


def landscape(values: dict[str, float], epochs: int) -> list[float]:
    """Accuracies by epoch: a smooth peak in the four hyperparameters, reached exponentially."""
    height = 0.95 - 0.05 * math.log10(values[RATE] / 0.02) ** 2 - 0.01 * math.log10(values[DECAY] / 1e-3) ** 2
    height -= 0.02 * math.log2(values[TEMPERATURE] / 4) ** 2 + 0.1 * (values[WEIGHT] - 0.8) ** 2
    return [height * (1 - 0.5 ** (epoch + 1)) for epoch in range(epochs)]


class Trainings:
    """Trainings of edgestill's trials, one after another or in batches."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._reached, self.epochs = setting, dict[int, int](), 0

    def train(self, config: DistillConfig, trial: int, observe: Callable[[EpochRecord], None]) -> float:
        scores = landscape(values_of(config), self._setting.epochs)
        for epoch, score in enumerate(scores, 1):
            self._epoch()
            observe(record(epoch, score))
        return max(scores)

    def at_once(self, stretches: Sequence[Stretch]) -> Iterator[Callable[[], Reached]]:
        for stretch in stretches:
            for _ in range(self._reached.get(stretch.trial, 0), stretch.until):
                self._epoch()
            self._reached[stretch.trial] = stretch.until
            yield functools.partial(self._told, stretch)

    def _told(self, stretch: Stretch) -> Reached:
        scores = landscape(values_of(stretch.config), self._setting.epochs)
        is_over = stretch.until == self._setting.epochs
        return Reached(tuple(scores[: stretch.until]), max(scores) if is_over else None)

    def _epoch(self) -> None:
        time.sleep(self._setting.epoch_s)
        self.epochs += 1


def ours(setting: Setting, folder: Path, seed: int) -> Tuned:
    trainings = Trainings(setting)
    return _tuned(setting, folder, seed, trainings, 1, None)


def ours_in_batches(setting: Setting, folder: Path, seed: int) -> Tuned:
    trainings = Trainings(setting)
    return _tuned(setting, folder, seed, trainings, setting.batch, trainings.at_once)


def _tuned(
    setting: Setting, folder: Path, seed: int, trainings: Trainings, size: int, at_once: TrainAtOnce | None
) -> Tuned:
    config = TuneConfig(trials=setting.trials, epochs=setting.epochs, min_epochs=MIN_EPOCHS, at_once=size)
    begun = time.perf_counter()
    result = tune(config, recipe(setting), trainings.train, folder / "study.db", seed=seed, at_once=at_once)
    assert result.best_value is not None
    return Tuned(time.perf_counter() - begun, result.best_value, trainings.epochs)


def recipe(setting: Setting) -> DistillConfig:
    return DistillConfig(training=StudentTrainingConfig(epochs=setting.epochs))


def values_of(config: DistillConfig) -> dict[str, float]:
    [method] = config.methods
    training = config.training
    return {
        RATE: training.learning_rate,
        DECAY: training.weight_decay,
        TEMPERATURE: float(getattr(method, "temperature")),  # noqa: B009 - plain KD's
        WEIGHT: float(getattr(method, "distill_weight")),  # noqa: B009
    }


def record(epoch: int, score: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, learning_rate=0.1, loss=1.0, terms={}, seconds=0.0, validation_accuracy=score,
        validation_cross_entropy=1.0,
    )  # fmt: skip


def by_optuna(kind: str) -> Tool:
    def tool(setting: Setting, folder: Path, seed: int) -> Tuned:
        epochs = 0
        ranges = search_ranges(recipe(setting))

        def objective(trial: optuna.Trial) -> float:
            nonlocal epochs
            values = {n: trial.suggest_float(n, r.low, r.high, log=r.scale == "log") for n, r in ranges.items()}
            for epoch, score in enumerate(landscape(values, setting.epochs), 1):
                time.sleep(setting.epoch_s)
                epochs += 1
                trial.report(score, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return score

        begun = time.perf_counter()
        study = optuna.create_study(
            storage=storage(kind, folder),
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=True),
            pruner=optuna.pruners.HyperbandPruner(MIN_EPOCHS, setting.epochs, FACTOR),
        )
        study.optimize(objective, n_trials=setting.trials)
        return Tuned(time.perf_counter() - begun, study.best_value, epochs)

    return tool


def storage(kind: str, folder: Path) -> Any:
    if kind == "sqlite":
        return optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    if kind == "journal":
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.log"))
        return optuna.storages.JournalStorage(backend)
    return None


def by_ray(setting: Setting, folder: Path, seed: int) -> Tuned:
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    import ray
    from ray import tune as raytune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    ranges = search_ranges(recipe(setting))
    space = {n: (raytune.loguniform if r.scale == "log" else raytune.uniform)(r.low, r.high) for n, r in ranges.items()}
    epochs, epoch_s, curve = setting.epochs, setting.epoch_s, landscape

    def trainable(values: dict[str, float]) -> None:
        for score in curve(values, epochs):
            time.sleep(epoch_s)
            raytune.report({"score": score})

    begun = time.perf_counter()
    tuner = raytune.Tuner(
        trainable,
        param_space=space,
        tune_config=raytune.TuneConfig(
            num_samples=setting.trials,
            search_alg=OptunaSearch(metric="score", mode="max", seed=seed),
            scheduler=ASHAScheduler(
                metric="score", mode="max", max_t=epochs, grace_period=MIN_EPOCHS, reduction_factor=FACTOR
            ),
        ),
        run_config=raytune.RunConfig(storage_path=str(folder), name="study", verbose=0),
    )
    results = tuner.fit()
    seconds = time.perf_counter() - begun
    ended = [result.metrics for result in results if result.metrics and "score" in result.metrics]
    if len(ended) < setting.trials:
        raise SystemExit(f"Ray Tune finished {len(ended)} of {setting.trials} trials")
    return Tuned(seconds, max(m["score"] for m in ended), sum(m["training_iteration"] for m in ended))


TOOLS: dict[str, Tool] = {
    "edgestill": ours,
    "edgestill, batches": ours_in_batches,
    "optuna, sqlite": by_optuna("sqlite"),
    "optuna, journal": by_optuna("journal"),
    "optuna, memory": by_optuna("memory"),
    "ray": by_ray,
}

if __name__ == "__main__":
    sys.exit(main())
