"""Trainings that the baselines are expected to have time for."""

from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.probes import Probes

_OTHERS = 2  # arms beside the recipe: without a teacher, and the largest student


def expected_trainings(config: RunConfig, probes: Probes) -> int:
    """Number of trainings that fit into `baselines.budget`, if all take as long as the student's."""
    epochs = config.distill.training.epochs
    allowed_s = config.baselines.budget * probes.taught_s(epochs + config.tune.expected_epochs)
    return fitting(int(allowed_s / probes.taught_s(epochs)), config.baselines.seeds)


def fitting(affordable: int, seeds: int) -> int:
    """Number of trainings in turns, as `Rounds.play` has them.

    The first seed's recipe is the distillation itself. A later seed begins with a recipe, which is not trained alone.
    """
    most = _OTHERS + (seeds - 1) * (1 + _OTHERS)
    count = min(affordable, most)
    begun = count > _OTHERS and (count - _OTHERS) % (1 + _OTHERS) == 1
    return count - begun
