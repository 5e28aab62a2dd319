"""Tuning of the methods' declared hyperparameters, the learning rate and the weight decay, with Optuna.

The same seed gives the same study: each trial's sampler is seeded by the seed and the trial's number. The study also
survives a kill: the trial then running keeps its number and its parameters and goes on from its last epoch, so that
the study ends as an undisturbed one does. (One decision can be lost: a kill in the milliseconds between Hyperband's
verdict on a trial and its entry in the study.)
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgestill.distill.config import DistillConfig, StudentTrainingConfig, TuneConfig
from edgestill.distill.elsewhere.stretch import TrainAtOnce
from edgestill.distill.methods import METHODS
from edgestill.distill.result import TrialRecord, TuneResult
from edgestill.distill.study_server import StudyServer
from edgestill.distill.tunable import TuningRange, tuning_ranges
from edgestill.pipeline.errors import CandidateError, FailedError, TrainingError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.training.state import EpochRecord

if TYPE_CHECKING:
    import optuna


STUDY = "edgestill"  # Hyperband assigns brackets by study name and trial number: it must not vary between runs
_FAILURES = (TrainingError, CandidateError)  # of one trial; the study goes on
_FACTOR = 3  # of Hyperband: each look keeps a third, and the next comes after three times the epochs

# (configuration, trial's number, observe) -> best metric on validation; errors raised by `observe` must pass through.
Train = Callable[[DistillConfig, int, Callable[[EpochRecord], None]], float]


def tune(
    config: TuneConfig,
    distill: DistillConfig,
    train: Train,
    storage: Path | StudyServer,
    *,
    seed: int,
    owner: str = "",
    first: Sequence[Mapping[str, float]] = (),
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
    say: Callable[[str], None] = lambda line: None,
    at_once: TrainAtOnce | None = None,
) -> TuneResult:
    """Maximise the metric on validation over the declared ranges; the first trial is the configuration itself.

    Args:
        first: hyperparameters to try next, by dotted name.
        train: distills a fresh student with the given configuration.
        storage: the study's SQLite file, `optuna-dashboard sqlite:///FILE` opens it; or its place on a server.
        owner: identifies the study; one with another owner is refused.
        say: is told why nothing happens while another process keeps the file locked, or the server is away.
        at_once: trains the trials of a batch, `config.at_once` of them; None: `train` trains one after another.

    Raises:
        FailedError: no trial completed.
        RunDirError: the study has another owner, is damaged, or was locked or out of reach for too long.
    """
    import optuna

    from edgestill.distill.study import opened

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=min(config.min_epochs, config.epochs), max_resource=config.epochs, reduction_factor=_FACTOR
    )
    ranges = search_ranges(distill)
    with opened(storage, STUDY, owner, pruner, say) as study:
        for values in _first_values(distill, ranges, first)[len(study.trials) :]:
            study.enqueue_trial(values)  # one transaction: after a kill the trial is there or not
        short = distill.model_copy(update={"training": _short(distill.training, config.epochs)})
        configured = _suggesting(study, config, short, ranges, seed)
        if at_once is None:
            _finish_in_turn(study, config, configured, train, seed, tick)
        else:
            _finish_in_batches(study, config, short.training.epochs, configured, at_once, seed, tick)
        tick(config.trials, config.trials, _best_so_far(study))
        return _result(study, config.trials)


def _suggesting(
    study: "optuna.Study", config: TuneConfig, short: DistillConfig, ranges: Mapping[str, TuningRange], seed: int
) -> "Callable[[optuna.Trial], DistillConfig]":
    """Return a function that asks for a trial's hyperparameters, and puts them into the configuration."""

    def configured(trial: "optuna.Trial") -> DistillConfig:
        suggested = {}
        for name, found in ranges.items():
            study.sampler = _sampler(config, seed, trial.number, name)
            suggested[name] = trial.suggest_float(name, found.low, found.high, log=found.scale == "log")
        return with_hyperparameters(short, suggested)

    return configured


def _finish_in_batches(
    study: "optuna.Study",
    config: TuneConfig,
    epochs: int,
    configured: "Callable[[optuna.Trial], DistillConfig]",
    train: TrainAtOnce,
    seed: int,
    tick: Callable[[int, int, str], None],
) -> None:
    from edgestill.distill.elsewhere.batches import Batches, stops

    def prepare(number: int) -> None:
        study.sampler = _sampler(config, seed, number)

    looks = stops(min(config.min_epochs, config.epochs), epochs, _FACTOR)
    batches = Batches(study, config.at_once, looks, prepare=prepare, configured=configured, train=train)
    batches.finish(config.trials, lambda: tick(_count_finished(study), config.trials, _best_so_far(study)))


def _finish_in_turn(
    study: "optuna.Study",
    config: TuneConfig,
    configured: "Callable[[optuna.Trial], DistillConfig]",
    train: Train,
    seed: int,
    tick: Callable[[int, int, str], None],
) -> None:
    import optuna

    def objective(trial: "optuna.Trial") -> float:
        trained = configured(trial)
        reported = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        best = max(reported.values(), default=-1.0)  # a resumed trial has epochs behind it

        def observe(record: EpochRecord) -> None:
            nonlocal best
            best = max(best, record.validation_score)
            trial.report(best, record.epoch)
            if record.epoch < trained.training.epochs and trial.should_prune():  # after the last, pruning saves nothing
                raise optuna.TrialPruned

        try:
            return train(trained, trial.number, observe)
        except _FAILURES as error:
            trial.set_user_attr("reason", str(error))
            raise
        except optuna.TrialPruned:
            raise
        except BaseException as error:
            raise _Interrupted(error) from error

    try:
        _finish_interrupted(study, objective, config, seed)
        while (done := _count_finished(study)) < config.trials:
            tick(done, config.trials, _best_so_far(study))
            study.sampler = _sampler(config, seed, len(study.trials))
            study.optimize(objective, n_trials=1, catch=_FAILURES)
    except _Interrupted as stop:
        raise stop.reason from None


def _result(study: "optuna.Study", wanted: int) -> TuneResult:
    completed = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not completed:
        reasons = {str(trial.user_attrs.get("reason", trial.state.name)) for trial in study.trials}
        raise FailedError(f"none of {wanted} tuning trials completed: {'; '.join(sorted(reasons))}")
    best = study.best_trial
    return TuneResult(
        enabled=True,
        best=dict(best.params),
        best_value=best.value,
        best_trial=best.number,
        trials=tuple(_record(trial) for trial in study.trials),
    )


def search_ranges(distill: DistillConfig) -> dict[str, TuningRange]:
    """Return the tuning ranges of all hyperparameters in use, by dotted name: `training.learning_rate`, …

    If a method fills `weight`, the `distill_weight` of the other methods is not in use.
    """
    found = {f"training.{n}": r for n, r in tuning_ranges(StudentTrainingConfig).items()}
    weighs = [method.name for method in distill.methods if "weight" in METHODS[method.name].fills]
    for method in distill.methods:
        unread = method.unread()
        if weighs and method.name not in weighs:
            unread |= {"distill_weight"}
        found |= {f"{method.name}.{n}": r for n, r in tuning_ranges(type(method)).items() if n not in unread}
    return found


def with_hyperparameters(distill: DistillConfig, values: Mapping[str, float]) -> DistillConfig:
    """Return the configuration with these values, given by dotted name, in place of its own."""

    def updated(section: Any, prefix: str) -> Any:
        own = {n.split(".", 1)[1]: v for n, v in values.items() if n.startswith(prefix + ".")}
        return type(section).model_validate(section.model_dump() | own)

    methods = tuple(updated(method, method.name) for method in distill.methods)
    return distill.model_copy(update={"methods": methods, "training": updated(distill.training, "training")})


def configured_values(distill: DistillConfig, ranges: Mapping[str, TuningRange]) -> dict[str, float]:
    """Return the configuration's own values by dotted name, clamped to their tuning ranges."""
    sections = {"training": distill.training} | {method.name: method for method in distill.methods}
    values = {}
    for name, found in ranges.items():
        section, field = name.split(".", 1)
        values[name] = min(max(float(getattr(sections[section], field)), found.low), found.high)
    return values


def _first_values(
    distill: DistillConfig, ranges: Mapping[str, TuningRange], first: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """Return the values to try first, each once; those of another recipe are left out."""
    wanted = [configured_values(distill, ranges)]
    for values in first:
        if values.keys() == ranges.keys() and dict(values) not in wanted:
            wanted.append(dict(values))
    return wanted


class _Interrupted(BaseException):
    """Carrier of a Ctrl-C or a full disk past Optuna, which would record the trial as failed and never finish it."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _sampler(config: TuneConfig, seed: int, trial: int, name: str = "") -> "optuna.samplers.BaseSampler":
    """Make a TPE sampler, seeded by trial and parameter rather than by the count of calls: a kill changes nothing."""
    import optuna

    return optuna.samplers.TPESampler(
        seed=derive_seed(seed, "tune", trial, name) % 2**32, n_startup_trials=config.startup_trials, multivariate=True
    )


def _finish_interrupted(
    study: "optuna.Study", objective: "Callable[[optuna.Trial], float]", config: TuneConfig, seed: int
) -> None:
    """Finish the trial left running by a kill. This process holds the run, so no other works on that trial."""
    import optuna

    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.sampler = _sampler(config, seed, left.number)
        trial = optuna.Trial(study, left._trial_id)
        try:
            study.tell(trial, objective(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except _FAILURES:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _count_finished(study: "optuna.Study") -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _best_so_far(study: "optuna.Study") -> str:
    values = [t.value for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" and t.value is not None]
    return f"best validation accuracy {max(values):.2%}" if values else ""


def _short(training: StudentTrainingConfig, epochs: int) -> StudentTrainingConfig:
    return training.model_copy(update={"epochs": min(epochs, training.epochs), "patience": 0})


def _record(trial: "optuna.trial.FrozenTrial") -> TrialRecord:
    state = trial.state.name
    return TrialRecord(
        number=trial.number,
        state=state,
        params=dict(trial.params),
        value=trial.value if state == "COMPLETE" else max(trial.intermediate_values.values(), default=None),
        epochs=len(trial.intermediate_values),
        reason=trial.user_attrs.get("reason"),
    )
