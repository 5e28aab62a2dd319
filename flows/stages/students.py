"""The student as a value handed from stage to stage, and its networks."""

from typing import Any

from torch import nn

from edgestill.distill.compression.narrow import narrow
from edgestill.distill.recipe import make_recipe
from edgestill.distill.result import PruneResult
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import Results
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.checkpoint import load_weights, read_state
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture
from edgestill.search.tournament import TournamentResult

METHODS = "methods.pt"  # state of the recipe's methods at the student's best epoch


class Student(Frozen):
    """A student between stages: a point of its space, its widths, and the files of its training."""

    architecture: Architecture
    widths: dict[str, tuple[int, int]] = {}  # layer -> channels in and out, where pruning changed them
    weights: str | None = None  # file in the run, of its shipped form; None: fresh
    methods: str | None = None  # file in the run, of the methods' state


def chosen(context: StageContext, results: Results) -> Student:
    """The student to be taught: the tournament's winner, fresh."""
    return Student(architecture=context.architecture_of(results.of(TournamentResult).winner))


def distilled(context: StageContext, results: Results) -> Student:
    """The student as it was taught, before any pruning."""
    return _taught(chosen(context, results), "distill")


def shipped(context: StageContext, results: Results) -> Student:
    """The student that ships: pruned, unless pruning is off or was refused."""
    student, pruned = distilled(context, results), results.get(PruneResult)
    if pruned is None or pruned.refused is not None:
        return student
    return _taught(student.model_copy(update={"widths": pruned.widths}), "prune")


def _taught(student: Student, stage: str) -> Student:
    return student.model_copy(update={"weights": f"{stage}/{WEIGHTS}", "methods": f"{stage}/{METHODS}"})


def networks(context: StageContext, student: Student, task: Task) -> tuple[nn.Module, nn.Module]:
    """Build a taught student in its trained and in its shipped form; they share all layers but a method's head."""
    assert student.weights is not None, "a fresh student has no shipped form"
    trained = narrow(context.structure(student.architecture, task), student.widths)
    deployable = make_recipe(context.config.distill.methods).deployable(trained)
    load_weights(deployable, context.run.root / student.weights)
    return trained, deployable


def methods_state(context: StageContext, student: Student) -> dict[str, Any]:
    """Read the state of the recipe's methods from the training that made the student.

    Raises:
        RunDirError: an earlier version trained it and did not keep the state.
    """
    assert student.methods is not None, "a fresh student's methods have no state"
    path = context.run.root / student.methods
    if path.exists():
        return read_state(path.read_bytes())
    recipe = make_recipe(context.config.distill.methods)
    if recipe.keeps_state:
        raise RunDirError(
            f"{path} is missing: an earlier version of edgestill made the {path.parent.name} stage and did not keep "
            f"what {' and '.join(recipe.keeps_state)} had prepared for the student; start a new run"
        )
    return recipe.state_dict()
