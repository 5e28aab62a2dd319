"""Settings that families of named architectures share."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file


class NamedConfig(Frozen):
    architecture: str  # TeacherConfig allows the names of all families
    weights: GivenPath | None = Field(
        None, description="teacher weights, a .safetensors file or torch checkpoint; null trains the teacher here"
    )

    @field_validator("weights")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)
