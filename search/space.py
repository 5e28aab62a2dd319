"""Search spaces: a table of genes, and a way to build a network from a choice for each gene."""

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from torch import nn

from edgestill.pipeline.errors import ArchitectureError, ConfigError, first_line
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.networks.network import BlockClassifier
from edgestill.pipeline.task import KindName, Task

MAX_TEXT = 4000  # characters of an architecture's string, several times the longest
_DRAWS = 100  # random draws for each different member asked for


class Gene(NamedTuple):
    name: str
    choices: tuple[int, ...]


class Architecture(Frozen):
    """Student without weights: its space and a choice for each gene."""

    space: str
    choices: dict[str, int]  # gene -> value

    @property
    def key(self) -> str:
        """Name of the architecture by content, used in seeds, caches and journals."""
        return digest(self.space, self.choices)


class SearchSpace(ABC):
    """Base of search spaces: subclasses give genes, network and string form; the rest follows from the genes."""

    name: ClassVar[str]
    inputs: ClassVar[KindName] = "image"
    has_channels: ClassVar[bool] = True  # of convolutions, which pruning can remove
    starts: ClassVar[frozenset[str]] = frozenset()  # first weights beside random ones: "pretrained", "teacher"
    genes: tuple[Gene, ...]

    @abstractmethod
    def build(self, architecture: Architecture, task: Task) -> BlockClassifier:
        """Build the student's network with fresh weights; students are made nowhere else."""

    def build_to_score(self, architecture: Architecture, task: Task) -> BlockClassifier:
        """Build the student as scorers look at it, which draws nothing in training."""
        return self.build(architecture, task)

    def pretrain(self, network: nn.Module, architecture: Architecture, task: Task) -> None:
        """Load published weights into a fresh network, in place; its classifier stays fresh.

        Raises:
            CheckpointError: they are missing or do not fit.
        """
        raise NotImplementedError

    def begin_from_teacher(
        self, network: nn.Module, architecture: Architecture, task: Task, teacher: nn.Module
    ) -> None:
        """Copy layers of the trained teacher into a fresh network, in place.

        Raises:
            ConfigError: the teacher has no such layers.
        """
        raise NotImplementedError

    def require_weights(self, task: Task | None = None) -> None:
        """Refuse to pretrain without published weights for every member; with a task, read them all.

        Raises:
            CheckpointError: some cannot be read or do not fit.
            ConfigError: some are missing; names them.
        """

    def weights_digests(self) -> tuple[str, ...]:
        """Return digests of the files that `pretrain` reads."""
        return ()

    @abstractmethod
    def format(self, architecture: Architecture) -> str:
        """Return the architecture in the space's string form, as `parse` reads it."""

    def describe(self, architecture: Architecture) -> str:
        """Return the architecture in words, for a reader who does not know the string form."""
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in architecture.choices.items())

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """Return the architecture named by a string; its values need not be among the genes' configured choices.

        Raises:
            ArchitectureError: the string names no architecture.
        """

    @abstractmethod
    def embedding_dims(self) -> frozenset[int]:
        """Return every possible width of a student's embedding."""

    @property
    def size(self) -> int:
        return math.prod(len(gene.choices) for gene in self.genes)

    def make(self, choices: dict[str, int]) -> Architecture:
        return Architecture(space=self.name, choices=choices)

    def sample(self, rng: random.Random) -> Architecture:
        """Draw each gene uniformly."""
        return self.make({gene.name: rng.choice(gene.choices) for gene in self.genes})

    def sample_different(self, count: int, rng: random.Random) -> list[Architecture]:
        """Draw `count` different members: all of a smaller space, fewer if random draws find no more."""
        if self.size <= count:
            return list(self.all_architectures())
        found: dict[str, Architecture] = {}
        for _ in range(_DRAWS * count):  # `size` may exceed the number of different members
            architecture = self.sample(rng)
            found.setdefault(architecture.key, architecture)
            if len(found) == count:
                break
        return list(found.values())

    def mutate(self, parent: Architecture, rng: random.Random, rate: float | None = None) -> Architecture:
        """Change each gene that has a choice with probability `rate` (default 1 / such genes), and at least one."""
        free = [gene for gene in self.genes if len(gene.choices) > 1]
        if not free:
            return parent
        rate = 1 / len(free) if rate is None else rate
        changed = [gene for gene in free if rng.random() < rate] or [rng.choice(free)]
        new = {g.name: rng.choice([c for c in g.choices if c != parent.choices[g.name]]) for g in changed}
        return self.make(parent.choices | new)

    def crossover(self, mother: Architecture, father: Architecture, rng: random.Random) -> Architecture:
        """Take each gene from either parent at random."""
        pairs = ((gene.name, rng.choice((mother, father))) for gene in self.genes)
        return self.make({name: parent.choices[name] for name, parent in pairs})

    def all_architectures(self) -> Iterator[Architecture]:
        """Yield every member once, in the order of the gene table."""
        names = [gene.name for gene in self.genes]
        for values in itertools.product(*(gene.choices for gene in self.genes)):
            yield self.make(dict(zip(names, values, strict=True)))

    def require(self, task: Task) -> None:
        """Refuse a task with inputs of another kind than the students'.

        Raises:
            ConfigError: the kinds differ.
        """
        if task.kind != self.inputs:
            raise ConfigError(
                [f"search.space: {self.name} is for {self.inputs} inputs, and the data's are {task.kind}"]
            )

    def read(self, text: str) -> Architecture:
        """Parse a string from an untrusted source.

        Raises:
            ArchitectureError: the string names no architecture, or the string or a number in it is too long.
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
        text = text if len(text) <= 60 else f"{text[:59]}…"
        return ArchitectureError(f"{text!r} is no architecture of space {self.name!r}; {expected[:300]}")
