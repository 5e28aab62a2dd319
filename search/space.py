"""A search space is a table of genes and a way to build a network from a choice of each."""

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from pipeline.errors import ArchitectureError, ConfigError, first_line
from pipeline.frozen import Frozen, digest
from pipeline.network import BlockClassifier
from pipeline.task import InputKind, Task

MAX_TEXT = 4000  # characters of an architecture, several times the longest
_DRAWS = 100  # for each member that is to be different from those before


class Gene(NamedTuple):
    name: str
    choices: tuple[int, ...]


class Architecture(Frozen):
    """A student without weights."""

    space: str
    choices: dict[str, int]  # gene -> value

    @property
    def key(self) -> str:
        """Names the architecture wherever it is met: seeds, caches and journals use it."""
        return digest(self.space, self.choices)


class SearchSpace(ABC):
    """Subclasses give the genes, the network and the string form; the rest is derived from the genes."""

    name: ClassVar[str]
    inputs: ClassVar[InputKind] = "image"
    genes: tuple[Gene, ...]

    @abstractmethod
    def build(self, architecture: Architecture, task: Task) -> BlockClassifier:
        """The student's network with fresh weights; the only place where a student is made."""

    @abstractmethod
    def format(self, architecture: Architecture) -> str:
        """The architecture in the space's string form, which `parse` reads back."""

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """The architecture that a string names; it need not be among the genes' configured choices.

        Raises:
            ArchitectureError: the string names none.
        """

    @abstractmethod
    def embedding_dims(self) -> frozenset[int]:
        """Every width that a student's embedding can have."""

    @property
    def size(self) -> int:
        return math.prod(len(gene.choices) for gene in self.genes)

    def make(self, choices: dict[str, int]) -> Architecture:
        return Architecture(space=self.name, choices=choices)

    def sample(self, rng: random.Random) -> Architecture:
        """Each gene uniformly."""
        return self.make({gene.name: rng.choice(gene.choices) for gene in self.genes})

    def sample_different(self, count: int, rng: random.Random) -> list[Architecture]:
        """`count` members by chance, each once; all of a smaller space, or as many as chance finds."""
        if self.size <= count:
            return list(self.all_architectures())
        found: dict[str, Architecture] = {}
        for _ in range(_DRAWS * count):  # `size` may be more than there are
            architecture = self.sample(rng)
            found.setdefault(architecture.key, architecture)
            if len(found) == count:
                break
        return list(found.values())

    def mutate(self, parent: Architecture, rng: random.Random, rate: float | None = None) -> Architecture:
        """Each gene changes with probability `rate` (default 1 / genes), and at least one does."""
        free = [gene for gene in self.genes if len(gene.choices) > 1]
        if not free:
            return parent
        rate = 1 / len(free) if rate is None else rate
        changed = [gene for gene in free if rng.random() < rate] or [rng.choice(free)]
        new = {g.name: rng.choice([c for c in g.choices if c != parent.choices[g.name]]) for g in changed}
        return self.make(parent.choices | new)

    def crossover(self, mother: Architecture, father: Architecture, rng: random.Random) -> Architecture:
        """Each gene from either parent."""
        pairs = ((gene.name, rng.choice((mother, father))) for gene in self.genes)
        return self.make({name: parent.choices[name] for name, parent in pairs})

    def all_architectures(self) -> Iterator[Architecture]:
        """Every member once, in the order of the gene table."""
        names = [gene.name for gene in self.genes]
        for values in itertools.product(*(gene.choices for gene in self.genes)):
            yield self.make(dict(zip(names, values, strict=True)))

    def require(self, task: Task) -> None:
        """Refuse a task whose inputs are of another kind than the students'.

        Raises:
            ConfigError: they are.
        """
        if task.kind != self.inputs:
            raise ConfigError(
                [f"search.space: {self.name} is for {self.inputs} inputs, and the data's are {task.kind}"]
            )

    def read(self, text: str) -> Architecture:
        """As `parse`, of a text that may be anybody's.

        Raises:
            ArchitectureError: also of one that is too long to be any, or whose numbers are.
        """
        if len(text) > MAX_TEXT:
            raise ArchitectureError(f"a text of {len(text):,} characters is no architecture; {MAX_TEXT:,} are allowed")
        try:
            return self.parse(text)
        except ArchitectureError:
            raise
        except (ValueError, RecursionError) as error:
            raise self.error(text, first_line(error)[:200]) from None

    def error(self, text: str, expected: str) -> ArchitectureError:
        text = text if len(text) <= 100 else f"{text[:99]}…"
        return ArchitectureError(f"{text!r} is no architecture of space {self.name!r}; {expected[:300]}")
