"""Settings and properties that families of named architectures share."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.teachers.teacher import Teacher


class NamedConfig(Frozen):
    architecture: str  # TeacherConfig allows the names of all families
    weights: GivenPath | None = Field(
        None, description="teacher weights, a .safetensors file or torch checkpoint; null trains the teacher here"
    )

    @field_validator("weights")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)


class NamedTeacher(Teacher):
    config: NamedConfig

    @property
    def title(self) -> str:
        return self.config.architecture

    @property
    def source(self) -> Path | None:
        return self.config.weights
