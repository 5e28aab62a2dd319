"""Students that are the teacher with fewer layers, heads and neurons; `distill.start: teacher` copies its weights.

Layers are evenly spaced, the first and the last among them, as DistilBERT takes every second one (Sanh et al. 2019,
arXiv:1910.01108); Sajjad et al. 2020 (Poor man's BERT, arXiv:2004.03844) compare with other choices. One gene is their
number, rather than a gene a layer: which layers are kept changes neither a cost nor a training-free score, whose
weights are random, so that a search could not choose between them. Heads and neurons are those that write most
(`pipeline/networks/encoder_layers.py`), as many in every layer; Michel et al. 2019 (arXiv:1905.10650) found most heads
dispensable. Embeddings, positions, norms, pooler and classifier are whole.

Students are trained without the teacher's dropout, as those of other spaces are, so that the same student from the
teacher's weights and from nothing differ in weights alone. DistilBERT keeps it; so does `dropout: true`. A score is of
the network without it: it would be of the draw too.
"""

import copy
import re
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator
from torch import nn

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.networks.encoder_layers import QUARTERS, EncoderSizes
from edgestill.pipeline.networks.layers_of_teacher import LayersOfTeacher, cut, filled, hollow, without_dropout
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers import AnyTeacherConfig, TeacherConfig, build_teacher, make_teacher
from edgestill.pipeline.teachers.whole import FITTING, whole_of
from edgestill.search.space import Architecture, Gene, SearchSpace

_LIMITS = {"layers": 1000, "heads": 1000, "feed_forward": QUARTERS}
_FORM = "lLAYERS or lLAYERShHEADSfQUARTERS, such as l6h12f4"
_ALONE = TeacherConfig(architecture="text_transformer_2x128")  # of a space outside of a run that names no teacher

Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["layers"])], ...], Field(min_length=1)]
Heads = Annotated[tuple[Annotated[int, Field(ge=1, le=_LIMITS["heads"])], ...], Field(min_length=1)]
Quarters = Annotated[tuple[Annotated[int, Field(ge=1, le=QUARTERS)], ...], Field(min_length=1)]


class LayersOfTeacherConfig(Frozen):
    """Transformers of the teacher's own layers, of texts or images, with its weights by `distill.start: teacher`."""

    short: ClassVar[str] = "teacher"  # key that the text after a colon is for

    name: Literal["layers_of_teacher"] = "layers_of_teacher"
    layers: Layers | None = Field(
        None, description="choices for the number of layers, evenly spaced in the teacher; null: each up to its own"
    )
    heads: Heads | None = Field(
        None, description="choices for the number of heads kept in each layer; null: each quarter of the teacher's"
    )
    feed_forward: Quarters | None = Field(
        None, description="choices for the feed-forward width, in quarters of the teacher's; null: 1 to 4"
    )
    dropout: bool = Field(False, description="keep the teacher's dropout in the training of its students")
    teacher: Any = Field(
        None, exclude=True, description="teacher whose layers they are, outside of a run; in a run it is the run's"
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _is_a_teacher(cls, teacher: Any, info: ValidationInfo) -> Any:
        return teacher and TypeAdapter(AnyTeacherConfig).validate_python(teacher, context=info.context)

    def beside(self, teacher: Any) -> Self:
        """Return the configuration for a run with this teacher.

        Raises:
            ValueError: another teacher is given here, or this one has no equal layers.
        """
        if self.teacher not in (None, teacher):
            raise ValueError("search.space.teacher is another than the run's teacher; leave it out")
        made = make_teacher(teacher)
        if not made.has_layers:
            raise ValueError(
                f"search.space: layers of the teacher are those of {FITTING}; {made.title} is none of them"
            )
        return self.model_copy(update={"teacher": teacher})


class LayersOfTeacherSpace(SearchSpace):
    """Space of one teacher. Its genes are read off the teacher's files once they are asked for.

    Raises:
        ConfigError: from `genes` and `build`: the teacher has no equal layers, or fewer than a choice.
        CheckpointError, MissingDependencyError: from there too: the teacher cannot be built.
    """

    name: ClassVar[str] = "layers_of_teacher"
    has_channels: ClassVar[bool] = False
    starts: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __init__(self, config: LayersOfTeacherConfig | None = None) -> None:
        self.config = config or LayersOfTeacherConfig()
        self._teacher = self.config.teacher or _ALONE
        self._hollow: dict[str, nn.Module] = {}  # by task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,)  # networks are built anew in another process

    @cached_property
    def _sizes(self) -> EncoderSizes:
        teacher = make_teacher(self._teacher)
        found = teacher.encoder_sizes()
        if found is None:
            raise ConfigError(
                [f"search.space: layers of the teacher are those of {FITTING}; {teacher.title} is none of them"]
            )
        return found

    @cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        layers, heads = self._sizes.layers, self._sizes.heads
        genes = [Gene("layers", _choices("layers", self.config.layers or range(1, layers + 1), layers))]
        if heads is None:
            _refuse_cuts(self.config)
            return tuple(genes)
        quarters = [max(1, round(heads * part / QUARTERS)) for part in range(1, QUARTERS + 1)]
        genes.append(Gene("heads", _choices("heads", self.config.heads or quarters, heads)))
        widths = self.config.feed_forward or range(1, QUARTERS + 1)
        genes.append(Gene("feed_forward", _choices("feed_forward", widths, QUARTERS)))
        return tuple(genes)

    @property
    def inputs(self) -> KindName:  # type: ignore[override]
        return self._sizes.kind or "image"

    def require(self, task: Task) -> None:
        if self._sizes.kind is not None:
            super().require(task)

    def build(self, architecture: Architecture, task: Task) -> LayersOfTeacher:
        self.require(task)
        key = digest(task)
        if key not in self._hollow:
            with drawn_from(0):
                self._hollow[key] = hollow(build_teacher(self._teacher, task))
        student = self._cut(copy.deepcopy(self._hollow[key]), architecture)
        filled(student)
        return student if self.config.dropout else without_dropout(student)

    def build_to_score(self, architecture: Architecture, task: Task) -> LayersOfTeacher:
        return without_dropout(self.build(architecture, task))

    def begin_from_teacher(
        self, network: nn.Module, architecture: Architecture, task: Task, teacher: nn.Module
    ) -> None:
        given = self._cut(copy.deepcopy(teacher), architecture)
        network.load_state_dict(given.state_dict())

    def _cut(self, network: nn.Module, architecture: Architecture) -> LayersOfTeacher:
        most = {"layers": self._sizes.layers, "heads": self._sizes.heads or 0}
        for name, value in architecture.choices.items():
            if value > most.get(name, value):
                raise ConfigError([f"{self.format(architecture)} has {value} {name}; the teacher has {most[name]}"])
        whole, linear = whole_of(network)
        return cut(whole, linear, **architecture.choices)

    def format(self, architecture: Architecture) -> str:
        choices = architecture.choices
        return "".join(f"{name[0]}{choices[name]}" for name in _LIMITS if name in choices)

    def describe(self, architecture: Architecture) -> str:
        choices = architecture.choices
        cuts = f", each with {choices['heads']} of its heads and {choices['feed_forward']} quarters of its feed-forward"
        return f"layers of the teacher's own: {choices['layers']}{cuts if 'heads' in choices else ''}"

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"l(\d+)(?:h(\d+)f(\d+))?", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM}")
        choices = {name: int(n) for name, n in zip(_LIMITS, found.groups(), strict=True) if n is not None}
        for name, value in choices.items():
            if not 1 <= value <= _LIMITS[name]:
                raise self.error(text, f"{name} is {value}; it goes from 1 to {_LIMITS[name]}")
        return self.make(choices)

    def embedding_dims(self) -> frozenset[int]:
        return frozenset({self._sizes.width})


def _choices(name: str, given: Any, most: int) -> tuple[int, ...]:
    choices = tuple(sorted(set(given)))
    if choices[-1] > most:
        raise ConfigError([f"search.space.{name}: {choices[-1]} is a choice, and the teacher has {most}"])
    return choices


def _refuse_cuts(config: LayersOfTeacherConfig) -> None:
    if config.heads is not None or config.feed_forward is not None:
        raise ConfigError(
            ["search.space: heads and feed-forward of this teacher's layers cannot be cut, as their attention is not "
             "known here; leave heads and feed_forward out"]
        )  # fmt: skip
