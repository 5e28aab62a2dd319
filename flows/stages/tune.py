"""Tune the distillation's hyperparameters by Optuna on short trainings; find none if tuning is off."""

from collections.abc import Callable
from typing import Any

from edgestill.distill.config import DistillConfig
from edgestill.distill.elsewhere.stretch import Stretch
from edgestill.distill.elsewhere.training import Training
from edgestill.distill.result import TuneResult
from edgestill.distill.study_server import exists, study_place
from edgestill.distill.train import distill
from edgestill.distill.tune import tune
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.elsewhere.trials import trials_at_once
from edgestill.flows.stages.elsewhere.workers import by_workers, in_turn
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import chosen
from edgestill.flows.supervise import attempting
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.tournament import TournamentResult


class Tune(Stage[TuneResult]):
    name = "tune"
    result = TuneResult
    to_change = "search.space or tune"

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config, winner = context.config, results.of(TournamentResult).winner
        first = results.warm_start.trials if config.tune.enabled else ()
        begun = *context.start_digests, *([first] if first else [])
        return results.of(TeacherResult), winner, config.tune, config.distill, *begun

    def work(self, context: StageContext, results: Results) -> TuneResult:
        config = context.config.tune
        if not config.enabled:
            return TuneResult(enabled=False, best={}, best_value=None, best_trial=None, trials=())
        splits = context.splits()
        teacher, student = frozen(context.teacher(splits.task)), chosen(context, results)
        file = context.run.path("tune", "study.db")
        storage = study_place(context.config.device.studies, file)
        if not exists(storage):
            context.run.forget("tune")  # checkpoints of trials whose study was deleted

        def train(trial_config: DistillConfig, trial: int, observe: Callable[[EpochRecord], None]) -> float:
            scratch = _state_file(trial)
            with attempting(f"trial {trial}"):
                distilled = distill(
                    context.fresh_student(student.architecture, splits.task),
                    teacher,
                    splits,
                    trial_config,
                    seed=context.seed("tune"),
                    device=context.device,
                    observe=observe,
                    save=context.saver("tune", scratch),
                    resume=context.saved("tune", scratch),
                    compute=context.compute,
                )
            return distilled.fitted.best.score

        def training(stretch: Stretch) -> Training:
            fresh = context.fresh_student(student.architecture, splits.task)
            return Training(f"trial {stretch.trial}", fresh, stretch.config, context.seed("tune"))

        with by_workers(context, lambda: (teacher, splits)) as teach:
            if teach is None and config.at_once > 1:
                teach = in_turn(context, teacher, splits, attempting)
            return tune(
                config,
                context.config.distill,
                train,
                storage,
                seed=context.seed("tune"),
                owner=context.run.owner("tune", file.name, context.inputs),
                first=results.warm_start.trials,
                tick=context.tick,
                say=context.say,
                at_once=None if teach is None else trials_at_once(context, "tune", teach, training, _state_file),
            )

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.tune
        if not config.enabled:
            return Estimate(0.0, note="off")
        epochs = config.expected_epochs
        seconds = probes.taught_s(epochs, trainings=config.trials)
        return Estimate(seconds, note=f"{config.trials} trials, some {epochs:.0f} epochs in all")

    def sentence(self, result: TuneResult) -> str:
        if not result.enabled:
            return "off"
        pruned = sum(trial.state == "PRUNED" for trial in result.trials)
        best = ", ".join(f"{name.split('.')[-1]} {value:.3g}" for name, value in result.best.items())
        return f"{result.best_value:.2%} on validation with {best}; {len(result.trials)} trials, {pruned} pruned"


def _state_file(trial: int) -> str:
    return f".trial_{trial}.pt"
