"""The stages to find the student and teach it; those to ship it are in `flows/delivery.py`.

Each turns a run's configuration and the results before it into its own result and files. Their order is in
`flows/chain.py` alone.
"""

import copy
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import DistillResult, TuneResult
from edgestill.distill.train import Distilled, caches_teacher, distill
from edgestill.distill.tune import tune, with_hyperparameters
from edgestill.flows.cache import kept_calibration
from edgestill.flows.heads import telling_of_heads, what_ships
from edgestill.flows.latency import keep_latency_model, latency_of
from edgestill.flows.rehearsal import rehearse_export
from edgestill.flows.stage import (
    CHECKPOINT,
    METHODS,
    TOKENIZER,
    WEIGHTS,
    DataResult,
    Stage,
    fresh_student,
    saved,
    saver,
    trained_teacher,
)
from edgestill.flows.supervise import attempting
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import Batch, Splits, draw_batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.networks.network import uninitialised
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import state_bytes, weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import build_teacher, make_teacher
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import Supervised, fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.search import find_student, require_feasible


def prepare_data(stage: Stage) -> DataResult:
    """Read and split the data, record sizes and digests; refuse a hopeless budget or export before training."""
    config = stage.config
    splits = load_splits(config.read_data, config.seed)
    make_recipe(config.distill.methods).check(splits.task, splits.train)
    if splits.coder is not None:
        stage.run.write("data", TOKENIZER, splits.coder.json)
    with uninitialised():
        build_teacher(config.teacher, splits.task)  # refuses a teacher for other inputs
    keep_latency_model(stage)
    latency = latency_of(stage, splits.task)
    with telling_of_heads(config.distill):
        require_feasible(config.search, splits.task, stage.seed("search"), latency, what_ships(config.distill))
    rehearse_export(stage, splits)
    return DataResult(task=splits.task, sizes=splits.sizes, digests=splits.digests)


def train_teacher(stage: Stage) -> TeacherResult:
    """Load the teacher's weights if the configuration names a file, else train them."""
    config, device = stage.config.teacher, stage.device
    teacher = make_teacher(config)
    splits = stage.splits()
    task = splits.task
    cost = measure_cost(lambda: teacher.build(task), task.input_shape, task.input_dtype)
    best_epoch: int | None = None
    curve: tuple[EpochRecord, ...] = ()
    if teacher.source is not None:
        network = teacher.load(task, teacher.source)
        validation = evaluate(network.to(device), splits.validation, device)
    else:
        with drawn_from(stage.seed("teacher", "weights")):
            network = teacher.build(task)
        fitted = fit(
            network,
            Supervised(),
            splits.train.labelled(),
            splits.validation,
            config.training,
            seed=stage.seed("teacher"),
            device=device,
            augmentation=Augmentation(splits.augment),
            observe=epoch_ticker(stage, config.training.epochs),
            save=saver(stage, "teacher"),
            resume=saved(stage, "teacher"),
            compute=stage.compute,
        )
        validation, best_epoch, curve = fitted.best, fitted.best_epoch, fitted.curve
        stage.run.write("teacher", "curve.csv", curve_csv(curve))
    stage.run.write("teacher", WEIGHTS, weights_bytes(network, teacher.metadata(task)))
    return TeacherResult(
        trained_here=teacher.source is None, validation=validation, cost=cost, best_epoch=best_epoch, curve=curve
    )


def search_student(stage: Stage) -> SearchResult:
    """Search the student's architecture; a resumed search scores no candidate again."""
    config = stage.config.search
    splits = stage.splits()
    trained = config.teacher_weights == "trained"
    journal = stage.run.journal("search", "history.jsonl", stage.inputs)
    teacher = trained_teacher(stage, splits.task) if trained else build_teacher(stage.config.teacher, splits.task)
    with telling_of_heads(stage.config.distill):
        return find_student(
            config,
            splits.task,
            scoring_batch(stage, splits),
            teacher,
            seed=stage.seed("search"),
            latency=latency_of(stage, splits.task),
            shipped=what_ships(stage.config.distill),
            known=journal.entries,
            record=journal.append,
            tick=stage.tick,
            calibrated=kept_calibration,
        )


def scoring_batch(stage: Stage, splits: Splits) -> Batch:
    """Training images to score candidates on, augmented if so configured."""
    config, seed = stage.config.search, stage.seed("search")
    batch = draw_batch(splits.train, config.batch_size, seed)
    if not config.batch_augmented:
        return batch
    generator = torch.Generator().manual_seed(derive_seed(seed, "augmented"))
    return Augmentation(splits.augment)(batch, 0, generator)


def tune_distillation(stage: Stage, student: Candidate) -> TuneResult:
    """Tune the distillation's hyperparameters, by Optuna on short trainings; find none if tuning is off."""
    config = stage.config.tune
    if not config.enabled:
        return TuneResult(enabled=False, best={}, best_value=None, best_trial=None, trials=())
    splits = stage.splits()
    teacher = frozen(trained_teacher(stage, splits.task))
    storage = stage.run.path("tune", "study.db")
    if not storage.exists():
        stage.run.forget("tune")  # checkpoints of trials whose study was deleted

    def train(trial_config: DistillConfig, trial: int, observe: Callable[[EpochRecord], None]) -> float:
        scratch = f".trial_{trial}.pt"
        with attempting(f"trial {trial}"):
            distilled = distill(
                fresh_student(stage, student.architecture, splits.task),
                teacher,
                splits,
                trial_config,
                seed=stage.seed("tune"),
                device=stage.device,
                observe=observe,
                save=saver(stage, "tune", scratch),
                resume=saved(stage, "tune", scratch),
                compute=stage.compute,
            )
        return distilled.fitted.best.accuracy

    return tune(
        config,
        stage.config.distill,
        train,
        storage,
        seed=stage.seed("tune"),
        owner=stage.run.owner("tune", storage.name, stage.inputs),
        tick=stage.tick,
        say=stage.say,
    )


def distill_student(stage: Stage, winner: Candidate, tuned: TuneResult) -> DistillResult:
    """Distill the student; keep its weights from the epoch best on validation."""
    config = with_hyperparameters(stage.config.distill, tuned.best)
    splits = stage.splits()
    distilled = taught(stage, "distill", fresh_student(stage, winner.architecture, splits.task), splits, config)
    stage.run.write("distill", WEIGHTS, weights_bytes(distilled.student))
    stage.run.write("distill", METHODS, state_bytes(distilled.state))
    fitted = distilled.fitted
    stage.run.write("distill", "curve.csv", curve_csv(fitted.curve))
    return DistillResult(
        architecture=winner.architecture,
        methods=tuple(method.model_dump(mode="json") for method in config.methods),
        learning_rate=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        teacher_cached=caches_teacher(make_recipe(config.methods), splits, config.training.views),
        validation=fitted.best,
        cost=_cost_of_what_ships(distilled.student, winner.cost, splits.task),
        best_epoch=fitted.best_epoch,
        stopped_early=fitted.stopped_early,
        curve=fitted.curve,
        measures=distilled.measures,
        exhibits=distilled.exhibits,
    )


def _cost_of_what_ships(network: nn.Module, searched: Cost, task: Task) -> Cost:
    """Cost of the searched student with parameters and FLOPs counted again: a method's head may have added some."""
    counted = measure_cost(lambda: copy.deepcopy(network).cpu(), task.input_shape, task.input_dtype)
    return searched.model_copy(update={"params": counted.params, "flops": counted.flops})


def taught(
    stage: Stage,
    name: str,
    student: nn.Module,
    splits: Splits,
    config: DistillConfig,
    start: Mapping[str, Tensor] | None = None,
    file: str = CHECKPOINT,
    state: Mapping[str, Any] | None = None,
) -> Distilled:
    """Train the student by the run's teacher, going on from a state saved by the stage `name` if there is one.

    Args:
        start: weights of the student's shipped form, to begin from.
        file: the stage's file for the training's state.
        state: of the methods, from the student's training before this one.
    """
    distilled = distill(
        student,
        trained_teacher(stage, splits.task),
        splits,
        config,
        seed=stage.seed(name),
        device=stage.device,
        observe=epoch_ticker(stage, config.training.epochs),
        save=saver(stage, name, file),
        resume=saved(stage, name, file),
        compute=stage.compute,
        start=start,
        state=state,
    )
    stage.cautions.extend(distilled.cautions)
    return distilled


def epoch_ticker(stage: Stage, epochs: int) -> Callable[[EpochRecord], None]:
    best = 0.0

    def observe(record: EpochRecord) -> None:
        nonlocal best
        best = max(best, record.validation_accuracy)
        stage.tick(record.epoch, epochs, f"validation {record.validation_accuracy:.2%}, best {best:.2%}")

    return observe


def curve_csv(curve: Sequence[EpochRecord]) -> str:
    terms = list(curve[0].terms) if curve else []
    columns = ["epoch", "learning_rate", "loss", *terms, "validation_accuracy", "validation_cross_entropy", "seconds"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for record in curve:
        writer.writerow(record.model_dump(exclude={"terms"}) | record.terms)
    return out.getvalue()
