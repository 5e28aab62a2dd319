"""Settings and loading that families of foreign networks share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, EdgestillError, first_line
from edgestill.pipeline.frozen import GivenPath, existing_file
from edgestill.pipeline.networks.cost import count_cost
from edgestill.pipeline.runs.checkpoint import load_weights, read_metadata
from edgestill.pipeline.task import Labels, Task
from edgestill.pipeline.teachers.adapted.labels import configured_names, match_labels
from edgestill.pipeline.teachers.adapted.network import Adapted, Answers, plainly
from edgestill.pipeline.teachers.adapted.pixels import Interpolation, Pixels, Sight
from edgestill.pipeline.teachers.adapted.tracing import Call
from edgestill.pipeline.teachers.adapted.weights import Held, held_by, load_foreign
from edgestill.pipeline.teachers.teacher import FamilyConfig, Teacher


class ForeignConfig(FamilyConfig):
    """Settings that every foreign network has: its pixels, its classes, its answers."""

    labels: Labels | None = Field(
        None, description="class names in the order of the teacher's outputs; null takes its own names, if it has any"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="mean of each channel that the teacher's pixels are normalised by; null: as it says itself"
    )
    std: tuple[float, ...] | None = Field(
        None, description="std of each channel that the teacher's pixels are normalised by; null: as it says itself"
    )
    range: tuple[float, float] | None = Field(
        None, description="range of the teacher's pixels before normalisation, such as [0, 255]; null: [0, 1]"
    )
    size: int | tuple[int, int] | Literal["data"] | None = Field(
        None, description="side or [height, width] of the teacher's images; data: the data's; null: as it says itself"
    )
    crop: float | None = Field(
        None, gt=0, le=1, description="share of the resized image that the teacher sees; null: as it says itself"
    )
    interpolation: Interpolation | None = Field(
        None, description="interpolation to the teacher's size, antialiased; null: as it says itself"
    )
    answers: Answers = Field("auto", description="logits or probabilities; auto looks at an answer")

    @field_validator("size", mode="before")
    @classmethod
    def _is_a_size(cls, size: Any) -> Any:
        sides = list(size) if isinstance(size, list | tuple) else [size]
        if size in (None, "data") or (len(sides) <= 2 and all(type(n) is int and 0 < n <= 4096 for n in sides)):
            return size
        raise ValueError(f"{size!r} is no size; write a side, [height, width], or data")

    @model_validator(mode="after")
    def _whole_normalisation(self) -> "ForeignConfig":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together, a value a channel each")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)} must be above 0")
        return self

    def seen(self, own: Sight) -> Sight:
        """Return the network's own sight with what is configured in its place."""
        given: dict[str, Any] = {
            "mean": self.mean, "std": self.std, "range": self.range, "crop": self.crop,
            "interpolation": self.interpolation,
        }  # fmt: skip
        if self.size is not None:
            given["size"] = (self.size, self.size) if isinstance(self.size, int) else self.size
        found = own._replace(**{key: value for key, value in given.items() if value is not None})
        return found._replace(size=None, crop=self.crop or 1.0) if self.size == "data" else found


class WhiteConfig(ForeignConfig):
    """Settings of a network that torch runs."""

    weights: GivenPath | None = Field(
        None, description="the teacher's weights, a .safetensors file or torch checkpoint"
    )
    features: str | None = Field(None, description="name of the module with the features; null finds it by tracing")
    classifier: str | None = Field(None, description="name of the last Linear; null finds it by tracing")

    @field_validator("weights")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)


class ForeignTeacher(Teacher):
    """A foreign network that torch runs. Subclasses make it, and say what images it takes."""

    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    network: ClassVar[type[Adapted]] = Adapted
    config: WhiteConfig

    @property
    def source(self) -> Path | None:
        return self.config.weights

    @abstractmethod
    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        """Make the network of `outputs` classes with fresh weights.

        Args:
            held: what its file of weights tells of it; None: there is no file.
        """

    @abstractmethod
    def sight(self, task: Task) -> Sight:
        """Return the images that the network takes by itself."""

    def names(self, outputs: int) -> tuple[str, ...] | None:
        """Names of the outputs by themselves; None: unknown."""
        return None

    @property
    def stem(self) -> str | None:
        """Name of the network's first convolution, by which a file of weights tells its channels; None: unknown."""
        return None

    @property
    def call(self) -> Call:
        """How the network is given its inputs."""
        return plainly

    @property
    def who(self) -> str:
        return f"the teacher {self.title}"

    def build(self, task: Task) -> nn.Module:
        return self._adapted(task, self._held())

    def load(self, task: Task, path: Path) -> nn.Module:
        """Load the run's copy, which has our names for everything, or the given file, which has the network's own."""
        if path == self.source:
            network = self._adapted(task, held_by(path, self.stem))
            head = network.parts.classifier
            load_foreign(network.model, path, head, self.who, task)
            return network
        outputs = read_metadata(path).get("outputs", "")
        copied = held_by(path, self.stem)._replace(outputs=int(outputs)) if outputs.isdecimal() else self._held()
        network = self._adapted(task, copied)
        load_weights(network, path)
        return network

    def count(self, task: Task) -> tuple[int, int] | None:
        """Count the foreign network, its resize left out."""
        network = self.build(task)
        assert isinstance(network, Adapted)
        with torch.no_grad():
            inputs = network.before(torch.zeros(1, *task.input_shape, dtype=task.input_dtype))
        return count_cost(network.model, lambda: self.call(network.model, inputs))

    def metadata(self, task: Task) -> dict[str, str]:
        """Add the number of outputs, which may be more than the data's classes."""
        held = self._held()
        outputs = held.outputs if held is not None and held.outputs else task.num_classes
        return super().metadata(task) | {"outputs": str(outputs)}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        """The network resizes what it is given, so that weights fit any size."""

    def refusal(self, task: Task, fitting: Sequence[str]) -> str:
        return f"teacher: {self.title} takes no {task.kind}; hf:, a function of your own, and {', '.join(fitting)} do"

    def _held(self) -> Held | None:
        return None if self.source is None or not self.source.is_file() else held_by(self.source, self.stem)

    def _adapted(self, task: Task, held: Held | None) -> Adapted:
        outputs = held.outputs if held is not None and held.outputs else task.num_classes
        try:
            return self.wrapped(self.make(task, outputs, held), task)
        except (EdgestillError, MemoryError):
            raise
        except Exception as error:  # a network may fail by any error on inputs that are not its own
            raise CheckpointError(
                f"{self.who} cannot take the data's {task.inputs.plural}: {first_line(error)}"
            ) from error

    def wrapped(self, model: nn.Module, task: Task) -> Adapted:
        """Put the network between the task's inputs and its classes."""
        config = self.config
        network = self.network(
            model,
            task,
            self.before(task),
            self.call,
            answers=config.answers,
            classifier=getattr(config, "classifier", None),
            features=getattr(config, "features", None),
        )
        network.cautions = self._size_caution(task)
        names = configured_names(config, task.labels) or (self.names(network.outputs) if self.is_trained else None)
        return network.map_classes(match_labels(names, task.labels, network.outputs, self.who))

    def _size_caution(self, task: Task) -> tuple[str, ...]:
        """Say that images are made twice as large or small, or more, for a size that nobody configured."""
        size = self.config.seen(self.sight(task)).size if task.kind == "image" else None
        if size is None or self.config.size is not None:
            return ()
        given = f"{task.input_shape[1]} x {task.input_shape[2]}"
        if 0.5 < size[0] / task.input_shape[1] < 2:
            return ()
        seen = self.config.seen(self.sight(task)).described()
        return (
            f"{self.who} sees {seen}, as its own configuration says, made from the data's {given}; if it learnt on "
            "images of the data's size, set teacher.size to data",
        )

    def before(self, task: Task) -> nn.Module | None:
        return Pixels(task.input_shape, self.config.seen(self.sight(task))) if task.kind == "image" else None
