"""Choose the method of distillation by short trainings of the chosen student, where `distill.methods` is auto."""

from typing import Any

from edgestill.distill.auto import RecipeResult, Trained, halve, label_noise, rungs, suiting
from edgestill.distill.methods.facts import About
from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.probes import Probes
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.short_training import ShortTrainings
from edgestill.flows.stages.stage import Stage
from edgestill.flows.stages.students import chosen
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.teachers.teacher import PARTS, frozen
from edgestill.pipeline.training.calibration import softmax
from edgestill.pipeline.training.metrics import class_logits
from edgestill.search.tournament import TournamentResult

_JOURNAL = "rungs.jsonl"


class Recipe(Stage[RecipeResult]):
    name = "recipe"
    result = RecipeResult
    to_change = "distill.auto or distill.methods"

    def takes_part(self, config: RunConfig) -> bool:
        return config.distill.auto is not None

    def inputs(self, context: StageContext, results: Results) -> tuple[Any, ...]:
        winner = results.of(TournamentResult).winner
        return results.of(TeacherResult), winner, context.config.distill, *context.start_digests

    def work(self, context: StageContext, results: Results) -> RecipeResult:
        config = context.config.distill.auto
        assert config is not None
        trainings = ShortTrainings(context, self.name, config.train_images)
        student, splits = chosen(context, results).architecture, trainings.splits
        about, gives = _about(context, splits)
        methods, left_out = suiting(about, gives, config.methods)

        def train(method: str, rung: int, epochs: int) -> Trained:
            done = trainings(student, rung, epochs, method)
            return Trained(done.accuracy, done.right, done.seconds)

        journal = context.run.journal(self.name, _JOURNAL, context.inputs)
        found = halve(
            methods,
            config,
            train,
            longest=context.config.distill.training.epochs,
            validation_examples=len(splits.validation),
            known=journal.entries,
            record=journal.append,
            tick=context.tick,
        )
        return found.model_copy(update={"label_noise": about.label_noise, "left_out": left_out})

    def estimate(self, context: StageContext, probes: Probes) -> Estimate:
        config = context.config.distill.auto
        assert config is not None
        methods, _ = suiting(_facts(probes.splits, 0.0), PARTS, config.methods)
        plan = rungs(len(methods), config, context.config.distill.training.epochs)
        epochs, trainings = sum(e * n for e, n in plan), sum(n for _, n in plan)
        seconds = probes.taught_s(epochs, config.train_images, trainings)
        return Estimate(seconds, note=f"{trainings} trainings, {epochs} epochs in all")

    def sentence(self, result: RecipeResult) -> str:
        tried = f"{len(result.tried)} methods tried"
        if result.lead is None:
            return f"{result.chosen}; {tried}, and plain KD failed"
        lead = result.lead
        words = f"{100 * lead.accuracy:+.2f} points ± {100 * lead.standard_error:.2f} over plain KD on validation"
        noise = ", within noise" if lead.is_noise else ""
        if result.chosen == lead.method:
            return f"{result.chosen}, {words}{noise}; {tried}"
        return f"plain KD; {lead.method} was the best other, {words}{noise}; {tried}"


def _about(context: StageContext, splits: Splits) -> tuple[About, frozenset[str]]:
    """Return facts of the task, for which the teacher answers the validation examples, and the teacher's parts."""
    teacher = frozen(context.teacher(splits.task))
    answers = softmax(class_logits(teacher, splits.validation, context.device))
    noise = label_noise(answers, splits.validation.targets.numpy())
    gives = frozenset(getattr(teacher, "gives", PARTS)) & context.config.distill.driver.gives
    return _facts(splits, noise), gives


def _facts(splits: Splits, noise: float) -> About:
    labelled = len(splits.train.labelled())
    pool = len(splits.train) - labelled
    return About(splits.task.kind, splits.task.num_classes, labelled, pool, noise)
