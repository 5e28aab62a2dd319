"""Each stage of the chain: from a run's configuration and the results before it to its own result and files.

A stage says nothing about what comes next; `flows/compress.py` does. Only `report` opens the test split.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.config import DistillConfig
from distill.recipe import make_recipe
from distill.result import DistillResult, TuneResult
from distill.train import caches_teacher, distill
from distill.tune import tune, with_hyperparameters
from export.bundle import Bundle, TestMetrics, write_bundle
from export.parity import check_parity
from export.profile import evaluate_file, profile
from export.result import ConvertedModel, ConvertResult, ProfileResult
from export.sessions import INPUT, OUTPUT
from export.to_onnx import to_onnx
from flows.config import RunConfig
from pipeline.checkpoint import load_weights, read_state, state_bytes, weights_bytes
from pipeline.cost import measure_cost
from pipeline.data import draw_batch, load_splits, load_test
from pipeline.device import select_device
from pipeline.frozen import Frozen, derive_seed
from pipeline.metrics import Metrics, evaluate
from pipeline.rundir import RunDir, file_digest
from pipeline.task import Task
from pipeline.teacher import TeacherResult, build_teacher, frozen, load_teacher, teacher_metadata
from pipeline.training import EpochRecord, Supervised, fit
from search.result import SearchResult
from search.search import find_student, require_feasible
from search.spaces import make_space

WEIGHTS = "weights.safetensors"
_CHECKPOINT = ".checkpoint.pt"  # hidden files are no part of a stage's result


class DataResult(Frozen):
    task: Task
    sizes: dict[str, int]
    digests: dict[str, str]


class ReportResult(Frozen):
    """The last word: accuracies on the test split, opened here once."""

    teacher: Metrics
    student: Metrics
    shipped: Metrics
    bundle: str
    report: str


@dataclass(frozen=True)
class Stage:
    """What every stage function is given."""

    run: RunDir
    config: RunConfig
    tick: Callable[[int, int, str], None]

    @property
    def device(self) -> torch.device:
        return select_device(self.config.device)

    def seed(self, *parts: object) -> int:
        return derive_seed(self.config.seed, *map(str, parts))


def prepare_data(stage: Stage) -> DataResult:
    """Read the data, split it, record what each split holds; refuse a hopeless budget before anything is trained."""
    splits = load_splits(stage.config.data, stage.config.seed)
    require_feasible(stage.config.search, splits.task, stage.seed("search"))
    return DataResult(task=splits.task, sizes=splits.sizes, digests=splits.digests)


def train_teacher(stage: Stage) -> TeacherResult:
    """The teacher's weights: loaded where the configuration names a file, trained otherwise."""
    config, device = stage.config.teacher, stage.device
    splits = load_splits(stage.config.data, stage.config.seed)
    cost = measure_cost(lambda: build_teacher(config, splits.task), splits.task.input_shape)
    best_epoch: int | None = None
    curve: tuple[EpochRecord, ...] = ()
    if config.weights is not None:
        network = load_teacher(config, splits.task, config.weights)
        validation = evaluate(network.to(device), splits.validation, device)
    else:
        with _drawn_from(stage.seed("teacher", "weights")):
            network = build_teacher(config, splits.task)
        fitted = fit(
            network,
            Supervised(),
            splits.train,
            splits.validation,
            config.training,
            seed=stage.seed("teacher"),
            device=device,
            augmentation=splits.augment,
            observe=_epoch_ticker(stage, config.training.epochs),
            save=_saver(stage, "teacher"),
            resume=_saved(stage, "teacher"),
        )
        validation, best_epoch, curve = fitted.best, fitted.best_epoch, fitted.curve
        stage.run.write("teacher", "curve.csv", _curve_csv(curve))
    stage.run.write("teacher", WEIGHTS, weights_bytes(network, teacher_metadata(config, splits.task)))
    return TeacherResult(
        trained_here=config.weights is None, validation=validation, cost=cost, best_epoch=best_epoch, curve=curve
    )


def search_student(stage: Stage) -> SearchResult:
    """The architecture of the student; candidates that an interrupted search scored are not scored again."""
    config = stage.config.search
    splits = load_splits(stage.config.data, stage.config.seed)
    trained = config.teacher_weights == "trained"
    teacher = _teacher(stage, splits.task) if trained else build_teacher(stage.config.teacher, splits.task)
    return find_student(
        config,
        splits.task,
        draw_batch(splits.train, config.batch_size, stage.seed("search")),
        teacher,
        seed=stage.seed("search"),
        known=stage.run.journal("search", "history.jsonl"),
        record=lambda entry: stage.run.append("search", "history.jsonl", json.dumps(entry)),
        tick=stage.tick,
    )


def tune_distillation(stage: Stage, found: SearchResult) -> TuneResult:
    """The hyperparameters of the distillation, by Optuna on short trainings; none if tuning is off."""
    config = stage.config.tune
    if not config.enabled:
        return TuneResult(enabled=False, best={}, best_value=None, best_trial=None, trials=())
    splits = load_splits(stage.config.data, stage.config.seed)
    teacher = frozen(_teacher(stage, splits.task))

    def train(trial_config: DistillConfig, trial: int, observe: Callable[[EpochRecord], None]) -> float:
        scratch = f".trial_{trial}.pt"
        _, fitted = distill(
            _student(stage, found, splits.task),
            teacher,
            splits,
            trial_config,
            seed=stage.seed("tune"),
            device=stage.device,
            observe=observe,
            save=_saver(stage, "tune", scratch),
            resume=_saved(stage, "tune", scratch),
        )
        return fitted.best.accuracy

    return tune(
        config,
        stage.config.distill,
        train,
        stage.run.path("tune", "study.db"),
        seed=stage.seed("tune"),
        tick=stage.tick,
    )


def distill_student(stage: Stage, found: SearchResult, tuned: TuneResult) -> DistillResult:
    """The student's weights, best on validation."""
    config = with_hyperparameters(stage.config.distill, tuned.best)
    splits = load_splits(stage.config.data, stage.config.seed)
    student = _student(stage, found, splits.task)
    deployable, fitted = distill(
        student,
        _teacher(stage, splits.task),
        splits,
        config,
        seed=stage.seed("distill"),
        device=stage.device,
        observe=_epoch_ticker(stage, config.training.epochs),
        save=_saver(stage, "distill"),
        resume=_saved(stage, "distill"),
    )
    stage.run.write("distill", WEIGHTS, weights_bytes(deployable))
    stage.run.write("distill", "curve.csv", _curve_csv(fitted.curve))
    return DistillResult(
        architecture=found.winner.architecture,
        methods=tuple(method.model_dump(mode="json") for method in config.methods),
        learning_rate=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        teacher_cached=caches_teacher(make_recipe(config.methods), splits),
        validation=fitted.best,
        cost=found.winner.cost,
        best_epoch=fitted.best_epoch,
        stopped_early=fitted.stopped_early,
        curve=fitted.curve,
    )


def export_models(stage: Stage, found: SearchResult) -> ConvertResult:
    """Student and teacher as ONNX files, each checked against its network."""
    splits = load_splits(stage.config.data, stage.config.seed)
    parts = {"validation": splits.validation, "reference": splits.reference}
    networks = {"student": _trained_student(stage, found, splits.task), "teacher": _teacher(stage, splits.task)}
    models = {}
    for done, (name, network) in enumerate(networks.items()):
        stage.tick(done, len(networks), name)
        data = to_onnx(network, splits.task.input_shape, stage.config.export.opset)
        path = stage.run.write("export", f"{name}.onnx", data)
        models[name] = ConvertedModel(
            path=str(path.relative_to(stage.run.root)),
            sha256=file_digest(path),
            size_bytes=len(data),
            precision="fp32",
            opset=stage.config.export.opset,
            parity=check_parity(network, path, parts, splits.task.input_shape),
        )
    return ConvertResult(**models)


def profile_models(stage: Stage, converted: ConvertResult) -> ProfileResult:
    """Latency of both files on validation images, with the raw samples beside it."""
    splits = load_splits(stage.config.data, stage.config.seed)
    images = splits.validation.batch(torch.arange(min(64, len(splits.validation)))).inputs.numpy()
    result, timings = profile(converted, stage.run.root, images, stage.config.profile, stage.seed("profile"))
    samples = {name: timing.samples_ms for name, timing in timings.items()}
    stage.run.write("profile", "samples_ms.json", json.dumps(samples))
    return result


def test_and_bundle(
    stage: Stage, teacher: TeacherResult, found: SearchResult, distilled: DistillResult, profiled: ProfileResult
) -> ReportResult:
    """Open the test split, once; write the bundle. The shipped figures are the shipped file's."""
    device, run = stage.device, stage.run
    task = load_splits(stage.config.data, stage.config.seed).task
    test = load_test(stage.config.data, stage.config.seed)
    student = profiled.student
    scores = {
        "teacher": evaluate(_teacher(stage, task).to(device), test, device),
        "student": evaluate(_trained_student(stage, found, task).to(device), test, device),
        "shipped": evaluate_file(run.root / student.path, test),
    }
    manifest = run.manifest
    bundle = Bundle(
        schema="edgestill.bundle/1",
        name=stage.config.name,
        created=manifest.created,
        task=task,
        input={"name": INPUT, "dtype": "float32", "shape": ["batch", *task.input_shape], "range": [0, 1]},
        output={"name": OUTPUT, "dtype": "float32", "shape": ["batch", task.num_classes]},
        architecture=f"{found.space}:{found.winner.architecture}",
        methods=distilled.methods,
        metrics={name: TestMetrics(test_accuracy=found.accuracy, n=found.n) for name, found in scores.items()},
        cost={"teacher": teacher.cost, "student": distilled.cost},
        latency=_latency(profiled),
        parity=student.parity.model_dump(mode="json"),
        budget=stage.config.search.budget.model_dump(mode="json"),
        seeds={"run": stage.config.seed},
        versions=manifest.versions,
        machine=manifest.machine,
        git_commit=manifest.git_commit,
        config_digest=manifest.config_digest,
    )
    run.write_folder("bundle", lambda folder: _fill(folder, bundle, run.root / student.path, profiled))
    return ReportResult(**scores, bundle="bundle", report="report.html")


def _fill(folder: Path, bundle: Bundle, model: Path, profiled: ProfileResult) -> None:
    write_bundle(folder, bundle, model, profiled.student)


def _latency(profiled: ProfileResult) -> dict[str, Any]:
    latency = profiled.student.latency
    return {
        "runtime": latency.runtime,
        "provider": latency.provider,
        "threads": latency.threads,
        "batch": latency.batch,
        "cpu": profiled.cpu,
        "teacher": profiled.teacher.latency.summary,
        "student": latency.summary,
        "speedup": profiled.speedup,
        "speedup_interval": profiled.speedup_interval,
    }


def _teacher(stage: Stage, task: Task) -> nn.Module:
    return load_teacher(stage.config.teacher, task, stage.run.root / "teacher" / WEIGHTS)


def _student(stage: Stage, found: SearchResult, task: Task) -> nn.Module:
    """A fresh student; the same weights for every trial and for the distillation."""
    space = make_space(stage.config.search.space)
    with _drawn_from(stage.seed("student", "weights")):
        return space.build(space.parse(found.winner.architecture), task)


def _trained_student(stage: Stage, found: SearchResult, task: Task) -> nn.Module:
    """The distilled student as it ships, back from its weights file."""
    student = make_recipe(stage.config.distill.methods).deployable(_student(stage, found, task))
    load_weights(student, stage.run.root / "distill" / WEIGHTS)
    return student


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Draw what PyTorch draws inside from this seed, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _epoch_ticker(stage: Stage, epochs: int) -> Callable[[EpochRecord], None]:
    best = 0.0

    def observe(record: EpochRecord) -> None:
        nonlocal best
        best = max(best, record.validation_accuracy)
        stage.tick(record.epoch, epochs, f"validation {record.validation_accuracy:.2%}, best {best:.2%}")

    return observe


def _saver(stage: Stage, name: str, file: str = _CHECKPOINT) -> Callable[[dict[str, Any]], None]:
    def save(state: dict[str, Any]) -> None:
        stage.run.write(name, file, state_bytes(state))

    return save


def _saved(stage: Stage, name: str, file: str = _CHECKPOINT) -> dict[str, Any] | None:
    path = stage.run.path(name, file)
    return read_state(path) if path.exists() else None


def _curve_csv(curve: Sequence[EpochRecord]) -> str:
    terms = list(curve[0].terms) if curve else []
    columns = ["epoch", "learning_rate", "loss", *terms, "validation_accuracy", "validation_cross_entropy", "seconds"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for record in curve:
        writer.writerow(record.model_dump(exclude={"terms"}) | record.terms)
    return out.getvalue()
