"""The table of families of teachers: each has a file of its own and a line here, or is of another package."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator
from torch import nn

from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.plugins import Table, require_attributes, require_class, require_config
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.ensemble import EnsembleConfig, EnsembleTeacher
from edgestill.pipeline.teachers.hf import HfTeacher
from edgestill.pipeline.teachers.huggingface import HuggingFaceConfig, HuggingFaceTeacher
from edgestill.pipeline.teachers.onnx import OnnxTeacher
from edgestill.pipeline.teachers.outputs import OutputsTeacher
from edgestill.pipeline.teachers.python import PythonTeacher
from edgestill.pipeline.teachers.resnet import ResNetConfig, ResNetTeacher
from edgestill.pipeline.teachers.teacher import FamilyConfig, Teacher
from edgestill.pipeline.teachers.text_transformer import (
    CausalTransformerTeacher,
    TextTransformerConfig,
    TextTransformerTeacher,
)
from edgestill.pipeline.teachers.timm import TimmTeacher
from edgestill.pipeline.teachers.torchscript import TorchScriptTeacher
from edgestill.pipeline.teachers.torchvision import TorchvisionTeacher


def _line(name: str, found: Any) -> type[Teacher]:
    require_class(found, Teacher)
    require_attributes(found, name, "kinds", "Config")
    require_config(found.Config, name, FamilyConfig, is_complete=False)
    return found  # type: ignore[no-any-return]


TEACHERS: Table[type[Teacher]] = Table("teachers", _line, {
    "resnet": ResNetTeacher,
    "text_transformer": TextTransformerTeacher,
    "causal_transformer": CausalTransformerTeacher,
    "huggingface": HuggingFaceTeacher,
    "timm": TimmTeacher,
    "torchvision": TorchvisionTeacher,
    "hf": HfTeacher,
    "python": PythonTeacher,
    "onnx": OnnxTeacher,
    "torchscript": TorchScriptTeacher,
    "outputs": OutputsTeacher,
    "ensemble": EnsembleTeacher,
})  # fmt: skip
BUILT_IN = "built in"  # tag of TeacherConfig among the families' own configurations, which have a `name`

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[*(name for family in TEACHERS.values() for name in family.architectures)]


_WEIGHTS = "{name} is a file of weights; set teacher.weights to it, and teacher to its network, such as timm:resnet50"
_UNKNOWN = "unknown {name!r}; {near}; those of libraries are written KIND:NAME, such as timm:{name}"
_MEANT = {  # by a file's ending
    **dict.fromkeys((".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors"), _WEIGHTS),
    ".py": "{name} names no function; write {name}:make, with the name of yours in place of make",
    ".onnx": "{name} is an ONNX file; write onnx:{name}",
    ".npz": "{name} is a file of answers; write outputs:{name}",
    ".csv": "{name} is a file of answers; write outputs:{name}",
}


def _architectures() -> tuple[str, ...]:
    return tuple(name for family in TEACHERS.values() for name in family.architectures)


class TeacherConfig(FamilyConfig, HuggingFaceConfig, TextTransformerConfig, ResNetConfig):
    """Keys of the first three families together; the given keys tell the family, so no `name` is given."""

    architecture: ArchitectureName = Field(
        "resnet56", description="built-in architecture: a CIFAR-style ResNet, a text transformer or a causal one"
    )

    @field_validator("architecture", mode="before")
    @classmethod
    def _is_known(cls, name: Any) -> Any:
        if not isinstance(name, str) or name in _architectures():
            return name
        raise ValueError(
            _MEANT.get(Path(name).suffix, _UNKNOWN).format(name=name, near=nearest(name, _architectures()))
        )

    @model_validator(mode="after")
    def _one_source(self) -> "TeacherConfig":
        if self.folder is not None and self.weights is not None:
            raise ValueError("weights and folder are both given; a folder brings its own weights")
        return self

    @property
    def name(self) -> str:
        """Name of the family in the table."""
        if self.folder is not None:
            return "huggingface"
        return next(name for name, family in TEACHERS.items() if self.architecture in family.architectures)


def spelt_out(value: Any) -> Any:
    """Spell out the short forms: `resnet56`, `timm:resnet50`, and `my_teacher.py:make` for a user's function."""
    if not isinstance(value, str):
        return value
    name, colon, rest = value.partition(":")
    if colon and name in TEACHERS and TEACHERS[name].short:
        return {"name": name, TEACHERS[name].short: rest}
    if colon and (name.endswith(".py") or name not in TEACHERS):
        return {"name": "python", "code": value}
    return {"name": value} if value in TEACHERS and not TEACHERS[value].architectures else {"architecture": value}


def _tag(value: Any) -> str:
    if isinstance(value, TeacherConfig):
        return BUILT_IN
    return str(value.get("name", BUILT_IN) if isinstance(value, Mapping) else getattr(value, "name", BUILT_IN))


def config_type(families: Mapping[str, type[Teacher]]) -> Any:
    """Type of `teacher` in a configuration: by its `name` a family's own Config, without a name TeacherConfig."""
    own = {name: family.Config for name, family in families.items() if "name" in family.Config.model_fields}
    members: list[Any] = [Annotated[config, Tag(name)] for name, config in {BUILT_IN: TeacherConfig, **own}.items()]
    chosen = Annotated[reduce(or_, members), Discriminator(_tag)] if own else TeacherConfig
    return Annotated[chosen, BeforeValidator(spelt_out)]


if TYPE_CHECKING:
    AnyTeacherConfig = Any
else:
    AnyTeacherConfig = config_type(TEACHERS)


def make_teacher(config: Any) -> Teacher:
    """Make the teacher of a configuration."""
    return TEACHERS[config.name](config)


def _read(value: Any, context: Any) -> Any:
    return TypeAdapter(AnyTeacherConfig).validate_python(value, context=context)


EnsembleConfig.read_member, EnsembleTeacher.make = staticmethod(_read), staticmethod(make_teacher)


def build_teacher(config: Any, task: Task) -> nn.Module:
    """Build the teacher's network for a task, with fresh weights.

    Raises:
        ConfigError: the teacher reads another kind of input than the task's.
        CheckpointError: its settings do not fit the task.
    """
    return _fitting(config, task).build(task)


def load_teacher(config: Any, task: Task, path: Path) -> nn.Module:
    """Build the teacher with the weights of a file: its source, or the copy that a run keeps of them.

    Raises:
        ConfigError: the teacher reads another kind of input than the task's.
        CheckpointError: the file does not fit, or was trained on other inputs.
    """
    return _fitting(config, task).load(task, path)


def _fitting(config: Any, task: Task) -> Teacher:
    teacher = make_teacher(config)
    if task.kind not in teacher.kinds:
        fitting = [name for family in TEACHERS.values() if task.kind in family.kinds for name in family.architectures]
        raise ConfigError([teacher.refusal(task, fitting)])
    return teacher


__all__ = [
    "BUILT_IN",
    "TEACHERS",
    "AnyTeacherConfig",
    "FamilyConfig",
    "Teacher",
    "TeacherConfig",
    "build_teacher",
    "config_type",
    "load_teacher",
    "make_teacher",
    "spelt_out",
]
