"""Convolutional spaces of NNI's hub by name, such as `nni:MobileNetV3Space` (docs/explanation/nni.md).

A gene is one of NNI's choices, its values are indices into that choice's candidates. Choices switched off by others
(blocks beyond the depth, vertices of a NAS-Bench-101 cell that lead nowhere) are held at their first candidate and
left out of the string form, `name=value;name=value`, so that a network has one name.
"""

import functools
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, JsonValue
from torch import nn

from edgestill.pipeline import nni_compat
from edgestill.pipeline.errors import ArchitectureError, ConfigError, first_line
from edgestill.pipeline.frozen import Frozen, canonical_json
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace
from edgestill.search.spaces.nni_families import FAMILIES, Sample
from edgestill.search.spaces.nni_networks import HubNetwork, assemble

_TRIES = 100
_SMALL = 2_000  # up to so many combinations, members are counted, if choices switch others off
_NOT_OPTIONS = {
    "num_labels": "the task says it",
    "dropout_rate": "the student has no dropout",
    "drop_path_prob": "a student's pass must not depend on chance",
    "auxiliary_loss": "a student has one output",
}

if TYPE_CHECKING:
    HubName = str
else:
    HubName = Literal[*FAMILIES]


class NniHubConfig(Frozen):
    """Space of NNI's hub; `nni:MobileNetV3Space` is short for one with its default options."""

    short: ClassVar[str] = "space"  # key that the text after a colon is for

    name: Literal["nni"] = "nni"
    space: HubName = Field("NasBench201", description="class in nni.nas.hub.pytorch")
    options: dict[str, JsonValue] = Field(
        {}, description="arguments of the space's class, such as {width: 8, num_cells: 6}"
    )


class _Hub(NamedTuple):
    """NNI's space, on the meta device, and its choices as a table."""

    space: Any
    candidates: dict[str, tuple[Any, ...]]
    dims: frozenset[int]


class NniHubSpace(SearchSpace):
    """Space of NNI's hub.

    Raises:
        ConfigError: NNI's space refuses the options.
        MissingDependencyError: NNI cannot be imported.
    """

    name: ClassVar[str] = "nni"

    def __init__(self, config: NniHubConfig | None = None) -> None:
        self.config = config or NniHubConfig()
        self.name = f"nni:{self.config.space}"  # type: ignore[misc]
        self._family = FAMILIES[self.config.space]
        self._hub = _describe(self.config.space, canonical_json(self.config.options))
        self.genes = tuple(Gene(label, tuple(range(len(found)))) for label, found in self._hub.candidates.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,)  # NNI's own object cannot be pickled

    def build(self, architecture: Architecture, task: Task) -> HubNetwork:
        kind = _kind(self.config.space)
        with nni_compat.contexts(), torch.device("meta"):
            made: nn.Module = kind.frozen_factory(self._sample(architecture.choices))(**_options(self.config))
        return assemble(made, self._family.take_apart, task, for_224=self._family.for_224)

    def make(self, choices: dict[str, int]) -> Architecture:
        """Return the member of these choices; switched-off choices are set to their first candidate.

        A combination refused by NAS-Bench-101 becomes a near valid one.
        """
        sample = self._sample(choices)
        try:
            settled = self._settle(sample)
        except ArchitectureError:
            if self._family.mend is None:
                raise
            settled = self._settle(self._family.mend(self._hub.space, sample))
        return self._member(settled)

    def format(self, architecture: Architecture) -> str:
        settled = self._settle(self._sample(architecture.choices))
        return ";".join(f"{name}={_spelt(settled[name])}" for name in self._hub.candidates if name in settled)

    def describe(self, architecture: Architecture) -> str:
        return self.format(architecture).replace(";", ", ").replace("=", " ").replace("_", " ")

    def parse(self, text: str) -> Architecture:
        given: Sample = {}
        for pair in text.strip().split(";"):
            name, _, value = pair.partition("=")
            known = {_spelt(candidate): candidate for candidate in self._hub.candidates.get(name, ())}
            if value not in known or name in given:
                raise self.error(text, self._expectation(name, known))
            given[name] = known[value]
        first = {name: candidates[0] for name, candidates in self._hub.candidates.items()}
        try:
            settled = self._settle(first | given)
        except ArchitectureError as error:
            raise self.error(text, f"expected a valid cell: {error}") from error
        missing = [name for name in settled if name not in given]
        if missing:
            raise self.error(text, f"expected also {', '.join(missing)}")
        return self._member(settled)

    def embedding_dims(self) -> frozenset[int]:
        return self._hub.dims

    @property
    def size(self) -> int:
        """Number of members; with switched-off choices, an upper bound (all combinations) unless the space is small."""
        combinations = super().size
        if self._family.settle is None or combinations > _SMALL:
            return combinations
        return sum(1 for _ in self.all_architectures())

    def all_architectures(self) -> Iterator[Architecture]:
        met = set()
        for architecture in super().all_architectures():
            if self._family.settle is None or architecture.key not in met:
                met.add(architecture.key)
                yield architecture

    def mutate(self, parent: Architecture, rng: random.Random, rate: float | None = None) -> Architecture:
        """Mutate until the member differs, as a change of a switched-off choice has no effect.

        After 100 tries any other member is returned. A NAS-Bench-101 cell with a mere wire needs this.
        """
        if self.size == 1:
            return parent
        children = (super(NniHubSpace, self).mutate(parent, rng, rate) for _ in range(_TRIES))
        others = (self.sample(rng) for _ in itertools.count())
        return next(child for child in itertools.chain(children, others) if child != parent)

    def _sample(self, choices: dict[str, int]) -> Sample:
        return {name: candidates[choices[name]] for name, candidates in self._hub.candidates.items()}

    def _settle(self, sample: Sample) -> Sample:
        return self._family.settle(self._hub.space, sample) if self._family.settle else sample

    def _member(self, settled: Sample) -> Architecture:
        indices = {name: found.index(settled[name]) if name in settled else 0 for name, found in self._table()}
        return super().make(indices)

    def _table(self) -> Iterable[tuple[str, tuple[Any, ...]]]:
        return self._hub.candidates.items()

    def _expectation(self, name: str, known: Iterable[str]) -> str:
        if name not in self._hub.candidates:
            names = list(self._hub.candidates)
            return f"expected name=value;name=value, with names such as {', '.join(names[:3])}"
        return f"expected for {name} one of {', '.join(known)}, and once"


@functools.lru_cache(maxsize=8)
def _describe(name: str, options: str) -> _Hub:
    """Make NNI's space with its choices; cached, as the larger ones take seconds."""
    config = NniHubConfig(space=name, options=json.loads(options))
    kind = _kind(name)
    try:
        with nni_compat.contexts(), torch.device("meta"):
            space = kind(**_options(config))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        given = canonical_json(config.options)
        raise ConfigError(
            [f"search.space.options: NNI's {name} refuses {given}: {first_line(error, 'no reason')}"]
        ) from error
    mutables = space.simplify()
    candidates = {label: _candidates(mutable) for label, mutable in mutables.items() if hasattr(mutable, "values")}
    widths = FAMILIES[name].widths(space)
    dims = frozenset(int(width) for width in (widths.grid() if hasattr(widths, "grid") else widths))
    return _Hub(space, candidates, dims)


def _kind(name: str) -> Any:
    return getattr(nni_compat.load("nni.nas.hub.pytorch"), name)


def _options(config: NniHubConfig) -> dict[str, Any]:
    refused = [
        f"search.space.options: leave out {name}, {why}" for name, why in _NOT_OPTIONS.items() if name in config.options
    ]
    if refused:
        raise ConfigError(refused)
    return FAMILIES[config.space].defaults | {name: _tupled(value) for name, value in config.options.items()}


def _tupled(value: JsonValue) -> Any:
    """Turn lists into tuples: NNI expects a tuple for a range, and JSON and YAML have none."""
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _candidates(mutable: Any) -> tuple[Any, ...]:
    """Return the values of a choice of one, or the subsets, in the order of their values, of a choice of several."""
    return tuple(list(value) if isinstance(value, list | tuple) else value for value in mutable.grid())


def _spelt(value: Any) -> str:
    return ("+".join(map(str, value)) or "-") if isinstance(value, list) else str(value)
