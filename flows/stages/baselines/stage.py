"""Train the student without its teacher, by plain KD, by further seeds, and the largest one, as far as time allows.

The report compares them on the test split. Nothing that ships depends on them.
"""

from collections.abc import Callable
from typing import Any

from edgestill.distill.result import DistillResult, TuneResult
from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.flows.config.model import RunConfig
from edgestill.flows.latency import export_student, median_ms
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.baselines.allowance import Allowance
from edgestill.flows.stages.baselines.arms import Arm, arms_of, largest_of
from edgestill.flows.stages.baselines.expected import expected_trainings
from edgestill.flows.stages.baselines.rounds import Rounds
from edgestill.flows.stages.baselines.trainings import Trainings
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import BaselineArm, BaselinesResult, BaselineTraining, LatencyRatio, Results
from edgestill.flows.stages.stage import Stage
from edgestill.flows.wording.worth import trainings_clause
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.timing.latency_statistics import paired_ratio
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.tournament import TournamentResult

_JOURNAL = "trainings.jsonl"


class Baselines(Stage[BaselinesResult]):
    name = "baselines"
    result = BaselinesResult
    to_change = "baselines"

    def takes_part(self, config: RunConfig) -> bool:
        return config.baselines.enabled and config.distill.driver.can_be_repeated

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        config, winner = context.config, results.of(TournamentResult).winner
        settings = config.baselines, config.distill, config.tune, config.profile
        trained = results.of(TeacherResult), winner, results.of(TuneResult), results.of(DistillResult)
        return *settings, *trained, largest_of(results), *context.start_digests

    def work(self, context: StageContext, results: Results) -> BaselinesResult:
        config, arms = context.config, arms_of(context.config, results)
        allowance = _allowance(context, results, arms)
        journal = context.run.journal("baselines", _JOURNAL, context.inputs)
        rounds = Rounds(_distillation(results), allowance, journal.entries, journal.append)
        trainings, seeds = Trainings(context), config.baselines.seeds
        is_tuned = results.of(TuneResult).enabled
        tuning_s = context.run.manifest.stages["tune"].seconds if is_tuned else 0.0
        total = len(arms) * seeds

        def train(arm: Arm, seed: int) -> BaselineTraining:
            return trainings(arm, seed, _ticker(context, len(rounds.trainings), total, f"{arm.name}, seed {seed}"))

        with trainings.by_workers():
            arms = rounds.tuned(arms, seeds, lambda arm: trainings.tuned(arm).best, tuning_s)
            rounds.play(arms, seeds, train, trainings.begin)
        return BaselinesResult(
            arms=tuple(_told(arm, rounds.failures.get(arm.name)) for arm in arms),
            trainings=tuple(rounds.trainings),
            seeds=seeds,
            allowed_s=allowance.allowed_s,
            seconds=allowance.spent_s,
            tuned="each" if rounds.are_tuned else "recipe" if is_tuned else "none",
            methods=tuple(method.name for method in config.distill.methods),
            start=config.distill.start,
            largest=largest_of(results).architecture,
            latency=_latency(context, results),
        )

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        count = expected_trainings(context.config, probes)
        weights = 4 * sum(parameter.numel() for parameter in probes.student().parameters())
        seconds = probes.taught_s(count * context.config.distill.training.epochs, trainings=count)
        return Estimate(seconds, count * weights, f"{count} trainings within baselines.budget")

    def sentence(self, result: BaselinesResult) -> str:
        return trainings_clause(result)


def _allowance(context: StageContext, results: Results, arms: tuple[Arm, ...]) -> Allowance:
    """Time in proportion to that of tuning and distillation; a larger student is expected to take longer."""
    records, curve = context.run.manifest.stages, results.of(DistillResult).curve
    taught_s = max(records["distill"].seconds, sum(record.seconds for record in curve))  # some before a kill
    allowed_s = context.config.baselines.budget * (records["tune"].seconds + taught_s)
    least = max(1, arms[0].candidate.cost.flops)
    return Allowance(allowed_s, {arm.name: taught_s * max(1.0, arm.candidate.cost.flops / least) for arm in arms})


def _distillation(results: Results) -> BaselineTraining:
    found = results.of(DistillResult)
    return BaselineTraining(
        arm="recipe",
        seed=0,
        weights=f"distill/{WEIGHTS}",
        validation=found.validation,
        best_epoch=found.best_epoch,
        epochs=len(found.curve),
        seconds=sum(record.seconds for record in found.curve),
    )


def _told(arm: Arm, failure: str | None) -> BaselineArm:
    training = arm.config.training
    return BaselineArm(
        name=arm.name,
        architecture=arm.candidate.architecture,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        failure=failure,
    )


def _latency(context: StageContext, results: Results) -> LatencyRatio | None:
    """Time the chosen and the largest student's fp32 files in turns.

    None if they are one or cannot be timed, and in a smoke run.
    """
    task, config = context.splits().task, context.config.profile
    chosen, largest = (context.architecture_of(c) for c in (results.of(TournamentResult).winner, largest_of(results)))
    if chosen == largest or context.config.smoke:
        return None
    settings = ProbeSettings(config.timing, config.threads, length=task.input_shape[0])
    opset = context.config.export.opset
    with nicety("the largest student was not timed beside the chosen one", context.cautions):
        files = {
            name: export_student(context.space, architecture, task, opset)
            for name, architecture in (("chosen", chosen), ("largest", largest))
        }
        timed = time_files(files, settings, context.seed("baselines"))
        ratio, interval = paired_ratio(timed["largest"].samples_ms, timed["chosen"].samples_ms)
        medians = (median_ms(timed[name]) for name in files)
        return LatencyRatio(
            **dict(zip(("chosen_ms", "largest_ms"), medians, strict=True)), ratio=ratio, interval=interval
        )
    return None


def _ticker(context: StageContext, done: int, total: int, what: str) -> Callable[[EpochRecord], None]:
    return lambda record: context.tick(done, total, f"{what}: validation {record.validation_score:.2%}")
