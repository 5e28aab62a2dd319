"""NNI's regularized evolution in NNI's own engine, in this process, over any of our spaces.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
arXiv:1802.01548, algorithm 1: a tournament gives the parent, its mutated child joins the population, the oldest
leaves. NNI's part is the population, the tournament, mutation and the engine. Ours is the handling of members:

- A combination above budget, or scored before, is refused like a broken constraint of NNI: NNI draws again.
- The first population is drawn as `evolution` draws it, so that a rare feasible member is found by descent.
- A failed candidate uses up an evaluation and reports no metric; NNI then leaves it out of the population, so it is
  never a parent.
- Fitness may depend on all candidates met (`combine`), so the population's is renewed before each tournament.

It scores one candidate at a time, in the order of breeding. It ends early if 500 mutations in a row give no new member
within budget (NNI's limit), or if random draws find no further member for the first population.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline import nni_compat
from edgestill.pipeline.frozen import Frozen
from edgestill.search.space import Architecture
from edgestill.search.strategies.base import Progress, S, Search


class NniRegularizedConfig(Frozen):
    """NNI's RegularizedEvolution; the paper's population of 100 and tournament of 25 are for 20,000 candidates."""

    name: Literal["nni_regularized"] = "nni_regularized"
    population: int = Field(36, ge=2, le=100_000, description="number of candidates that may be parents, the newest")
    sample: int = Field(
        10, ge=1, description="members of a tournament, at most population; the best becomes the parent"
    )
    mutation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mutation probability of each gene; null takes 1 / number of genes with several choices",
    )
    crossover: bool = Field(False, description="cross the winners of two tournaments, gene by gene, before mutation")

    @field_validator("sample")
    @classmethod
    def _fits(cls, sample: int, info: ValidationInfo) -> int:
        if sample > info.data.get("population", sample):
            raise ValueError(f"a tournament of {sample} cannot be held in a population of {info.data['population']}")
        return sample


def regularized_evolution(search: Search[S], config: NniRegularizedConfig) -> list[S]:
    """Run NNI's regularized evolution; return all scored candidates in order.

    Raises:
        BudgetError: no member within budget was found; names the limit and the nearest miss.
        MissingDependencyError: NNI cannot be imported.
    """
    members = _Members(search)
    strategy = nni_compat.load("nni.nas.strategy").RegularizedEvolution(
        population_size=config.population,
        sample_size=config.sample,
        mutation_prob=config.mutation or 1 / max(1, sum(len(gene.choices) > 1 for gene in search.space.genes)),
        crossover=config.crossover,
        seed=search.rng.getrandbits(32),
    )
    evaluator = nni_compat.load("nni.nas.evaluator").FunctionalEvaluator(members.evaluate)
    engine = nni_compat.load("nni.nas.execution").SequentialExecutionEngine(max_model_count=search.evaluations)
    space = nni_compat.load("nni.nas.space").RawFormatModelSpace.from_model(members, evaluator)
    space.random = functools.partial(_draw, members, space)
    strategy.best_parent = functools.partial(_best_parent, members, strategy, strategy.best_parent)
    with nni_compat.trial(), contextlib.suppress(_ExhaustedError):
        strategy(space, engine)
    return [result for _, result in members.progress.scored]


class _ExhaustedError(Exception):
    """End of the random draws: no further member is found."""


class _Members(Generic[S]):
    """Adapter of our space and budget to NNI's three methods of a space, and of scoring."""

    def __init__(self, search: Search[S]) -> None:
        self._search = search
        self._scored: set[str] = set()
        self._keys: list[str] = []  # of `progress.scored`
        self.progress = Progress(search)
        categorical = nni_compat.load("nni.mutable").Categorical
        self._labels = {gene.name: f"gene{i}" for i, gene in enumerate(search.space.genes)}  # NNI allows no slash
        self._mutables = [categorical(list(g.choices), label=self._labels[g.name]) for g in search.space.genes]

    def leaf_mutables(self, is_leaf: object) -> Iterator[Any]:
        yield from self._mutables

    def check_contains(self, sample: dict[str, int]) -> Exception | None:
        """Return the reason not to score a sample; None if it may be scored."""
        refusal: type[Exception] = nni_compat.load("nni.mutable").SampleValidationError
        architecture = self.freeze(sample)
        if architecture.key in self._scored:
            return refusal("scored before")
        return None if self._search.is_feasible(architecture) else refusal("above budget")

    def freeze(self, sample: dict[str, int]) -> Architecture:
        return self._search.space.make({name: sample[label] for name, label in self._labels.items()})

    def sample(self, architecture: Architecture) -> dict[str, int]:
        return {label: architecture.choices[name] for name, label in self._labels.items()}

    def evaluate(self, architecture: Architecture) -> None:
        """Score an architecture and report its fitness so far; report nothing if it failed."""
        self._scored.add(architecture.key)
        if self.progress.score([architecture]):
            self._keys.append(architecture.key)
            nni_compat.load("nni").report_final_result(self._fitness()[architecture.key])

    def renew(self, population: Iterable[Any]) -> None:
        """Update the population's fitness, as ranked among all candidates met so far."""
        fitness = self._fitness()
        for individual in population:
            individual.y = fitness[self.freeze(individual.x).key]

    def _fitness(self) -> dict[str, float]:
        values = self._search.rank([result for _, result in self.progress.scored])
        return {key: float(value) for key, value in zip(self._keys, values, strict=True)}


def _draw(members: _Members[S], space: Any, memo: dict[str, int], random_state: object) -> Any:
    """Draw a random feasible member for NNI's first population."""
    found = members.progress.take(1)
    if not found:
        raise _ExhaustedError
    memo.update(members.sample(found[0]))
    return space.freeze(memo)


def _best_parent(members: _Members[S], strategy: Any, tournament: Callable[[], Any]) -> Any:
    members.renew(strategy._population)
    return tournament()
