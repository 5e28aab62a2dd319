"""Networks that a user's own function gives: `teacher: python:my_teacher.py:make`, or an nn.Module from Python.

The code is run. The user named it by hand, in the configuration (docs/explanation/security.md).
"""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignTeacher, WhiteConfig
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.pixels import Pixels, Sight
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.encoder_sizes import sizes_in
from edgestill.pipeline.user_code import load_code, place_of_code

GIVEN = "given"  # in place of a function's place: the nn.Module that `compress` was called with
_ANY = Task(labels=("0", "1"), input_shape=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)  # where none is known yet
_given: list[nn.Module] = []  # while `compress` runs


class PythonConfig(WhiteConfig):
    names_code: ClassVar[tuple[str, ...]] = ("code",)

    name: Literal["python"] = "python"
    code: str = Field(description="place of a function or class that gives the network: module:name or file.py:name")
    train: bool = Field(False, description="train the network here; false takes the weights that it has, or `weights`")
    channels: int | None = Field(None, ge=1, description="channels that the network takes; null: the data's")

    @field_validator("code")
    @classmethod
    def _names_a_function(cls, code: str, info: ValidationInfo) -> str:
        if code == GIVEN:
            return code
        return place_of_code(code, info)


class PythonTeacher(ForeignTeacher):
    """The network of a user's function, class or module. It is called with `num_classes` or `task` if it takes them."""

    name: ClassVar[str] = "python"
    short = "code"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    Config: ClassVar[type[Frozen]] = PythonConfig
    config: PythonConfig

    @property
    def title(self) -> str:
        return "a module from Python" if self.config.code == GIVEN else self.config.code.rpartition("/")[2]

    @property
    def is_trained(self) -> bool:
        return not self.config.train

    @property
    def source_name(self) -> str:
        return super().source_name or ("" if self.config.train else self.title)

    def read(self, task: Task) -> nn.Module:
        return self._adapted(task, None) if self.source is None else self.load(task, self.source)

    def sight(self, task: Task) -> Sight:
        return Sight(self.config.channels or task.input_shape[0])

    def before(self, task: Task) -> nn.Module | None:
        sight = self.config.seen(self.sight(task)) if task.kind == "image" else None
        return None if sight is None else Pixels(task.input_shape, sight)

    def wrapped(self, model: nn.Module, task: Task) -> Adapted:
        """Put the network between the task's inputs and its classes; one of another precision is read as float32."""
        try:
            return super().wrapped(model, task)
        except RuntimeError:
            if all(p.dtype == torch.float32 for p in model.parameters() if p.is_floating_point()):
                raise
            return super().wrapped(model.float(), task)

    def encoder_sizes(self) -> EncoderSizes | None:
        return sizes_in(self.make(_ANY, _ANY.num_classes, None))

    def _held(self) -> Held | None:
        return None  # its function decides

    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        found = (
            _given_module()
            if self.config.code == GIVEN
            else load_code(self.config.code, "teacher.code", CheckpointError)
        )
        if isinstance(found, nn.Module):
            return copy.deepcopy(found)
        try:
            made = found(**_wanted(found, task, outputs))
        except Exception as error:  # it is the user's code
            said = first_line(error)
            if "Weights only load failed" in said:
                said = "torch.load refuses a file of more than tensors; save the network's state_dict() alone"
            raise CheckpointError(f"teacher.code: {self.config.code} fails: {said}") from error
        if not isinstance(made, nn.Module):
            raise CheckpointError(f"teacher.code: {self.config.code} gives a {type(made).__name__}, not an nn.Module")
        return made


@contextmanager
def giving(network: nn.Module | None) -> Iterator[None]:
    """Make a module the teacher of configurations with `code: given` within."""
    if network is None:
        yield
        return
    _given.append(network)
    try:
        yield
    finally:
        _given.pop()


def _given_module() -> nn.Module:
    if not _given:
        raise CheckpointError(
            "this run's teacher is an nn.Module that edgestill.compress(teacher=…) was given, and it is gone; name a "
            "function that makes it, teacher: python:file.py:function, for a run that can be resumed"
        )
    return _given[-1]


def _wanted(function: Any, task: Task, outputs: int) -> dict[str, Any]:
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in (("num_classes", outputs), ("task", task)) if name in known}
