"""Arms of the comparison: the student's own training, and each with one thing taken away."""

from collections.abc import Iterator
from typing import NamedTuple

from edgestill.distill.config import DistillConfig
from edgestill.distill.drivers.once import OnceConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.methods.none import NoneConfig
from edgestill.distill.result import TuneResult
from edgestill.distill.tune import with_hyperparameters
from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.results import ArmName, Results
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.tournament import TournamentResult


class Arm(NamedTuple):
    """One way to train."""

    name: ArmName
    candidate: Candidate
    config: DistillConfig
    is_tunable: bool = False  # True if it gets a tuning of its own, as the recipe had one

    @property
    def has_teacher(self) -> bool:
        return self.name != "no_teacher"

    @property
    def begins_at_random(self) -> bool:
        return self.name == "random_start"


def arms_of(config: RunConfig, results: Results) -> tuple[Arm, ...]:
    """Return the arms of a run, the recipe first; what the recipe is already has no arm of its own.

    All but the largest student have the hyperparameters that were tuned for the recipe.
    """
    return tuple(_arms(config, results))


def _arms(config: RunConfig, results: Results) -> Iterator[Arm]:
    configured, best = config.distill, results.of(TuneResult).best
    recipe, chosen = with_hyperparameters(configured, best), results.of(TournamentResult).winner
    yield Arm("recipe", chosen, recipe)
    if not _is_taught_by_labels(configured):
        yield Arm("no_teacher", chosen, _with_method(recipe, NoneConfig()), is_tunable=True)
    if not _is_plain_kd(configured):
        yield Arm("plain_kd", chosen, _with_method(recipe, KDConfig()), is_tunable=True)
    if configured.start != "random":
        yield Arm("random_start", chosen, recipe, is_tunable=True)
    largest = largest_of(results)
    if largest.architecture != chosen.architecture:
        yield Arm("largest", largest, configured)


def largest_of(results: Results) -> Candidate:
    """Return the student with most parameters that any search met within the budget.

    Of equals it is the one with most FLOPs, as a larger resolution costs no parameter; then the chosen one.
    One that failed in the tournament does not count.
    """
    found, played = results.of(SearchResult), results.of(TournamentResult)
    failed = {entrant.candidate.architecture for entrant in played.entrants if entrant.failure is not None}
    met = {c.architecture: c for c in (*found.candidates, *found.picks.values()) if c.architecture not in failed}
    met[played.winner.architecture] = played.winner
    return max(met.values(), key=lambda c: (c.cost.params, c.cost.flops, c is played.winner, c.architecture))


def _is_taught_by_labels(config: DistillConfig) -> bool:
    return all(isinstance(method, NoneConfig) for method in config.methods)


def _is_plain_kd(config: DistillConfig) -> bool:
    return config.driver.sampling is None and all(isinstance(method, KDConfig) for method in config.methods)


def _with_method(config: DistillConfig, method: KDConfig | NoneConfig) -> DistillConfig:
    return config.model_copy(update={"methods": (method,), "driver": OnceConfig()})
