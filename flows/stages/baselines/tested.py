"""Open the arms' weights and compare their answers on the test split; the report calls it, which opened that split."""

import numpy as np
from torch import nn

from edgestill.distill.recipe import make_recipe
from edgestill.flows.stages.baselines.arms import Arm, arms_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import ArmFigures, ArmName, BaselinesResult, Results, Worth
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.runs.checkpoint import load_weights
from edgestill.pipeline.training.difference import class_weights_of, paired_by_seed
from edgestill.pipeline.training.metrics import right_answers


def worth_of(context: StageContext, results: Results, test: ImageSplit) -> Worth | None:
    """Compare the recipe with every other arm, on the seeds that both were trained by; None without baselines."""
    found = results.get(BaselinesResult)
    if found is None:
        return None
    right = _right_by_seed(context, results, found, test)
    targets = test.targets.cpu().numpy()
    metric = context.config.distill.training.metric
    weights = class_weights_of(targets) if metric == "balanced_accuracy" else None
    recipe = right["recipe"]
    return Worth(
        n=len(test),
        metric=metric,
        arms=tuple(_figures(name, answers, weights) for name, answers in right.items()),
        gains={
            name: paired_by_seed(recipe[: len(answers)], answers[: len(recipe)], weights)
            for name, answers in right.items()
            if name != "recipe"
        },
    )


def _right_by_seed(
    context: StageContext, results: Results, found: BaselinesResult, test: ImageSplit
) -> dict[ArmName, np.ndarray]:
    """Mark the test examples that each arm answers right, [S, N] bool; an arm without a training has none."""
    marked: dict[ArmName, list[np.ndarray]] = {}
    arms = {arm.name: arm for arm in arms_of(context.config, results)}
    for training in found.trainings:
        network = _network(context, arms[training.arm])
        load_weights(network, context.run.root / training.weights)
        answers = right_answers(network.to(context.device), test, context.device)
        marked.setdefault(training.arm, []).append(answers)
    return {name: np.stack(rows) for name, rows in marked.items()}


def _network(context: StageContext, arm: Arm) -> nn.Module:
    """Build an arm's student in its shipped form, for its weights."""
    student = context.structure(context.architecture_of(arm.candidate), context.splits().task)
    return make_recipe(arm.config.methods).deployable(student)


def _figures(name: ArmName, right: np.ndarray, weights: np.ndarray | None) -> ArmFigures:
    balanced = () if weights is None else tuple(min(1.0, float(share)) for share in (right * weights).mean(1))
    return ArmFigures(name=name, accuracies=tuple(right.mean(1).tolist()), balanced=balanced)
