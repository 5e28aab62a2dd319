"""Settings of a target: the device that a student will run on."""

from typing import Literal

from pydantic import Field, field_validator

from edgestill.export.formats import FORMATS
from edgestill.export.targets.places import place_of
from edgestill.pipeline.errors import nearest
from edgestill.pipeline.figures import listing
from edgestill.pipeline.frozen import Frozen, GivenPath

PACKAGES = {  # runtime beside ONNX Runtime that the script there measures in -> packages, any one of which brings it
    "openvino": ("openvino",),
    "ai_edge_litert": ("ai-edge-litert", "tflite-runtime"),
}
NAME = r"^[a-z0-9][a-z0-9_-]{0,30}$"


class TargetConfig(Frozen):
    """One device. The first target of a run decides on its files; the others have a line in its tables."""

    names_services = ("where",)
    names_code = ("python",)

    name: str = Field(pattern=NAME, description="short name, for commands, the report and the bundle")
    where: str = Field("here", description="place of the device: here, ssh://USER@HOST[:PORT], adb:SERIAL, folder:PATH")
    runtime: Literal["onnxruntime"] = Field("onnxruntime", description="runtime that runs the files there")
    threads: int = Field(1, ge=1, le=1024, description="number of threads of the runtime there")
    formats: tuple[str, ...] = Field(
        (),
        description="formats to measure there, of export.formats; empty takes all that the runtime runs; those of "
        "OpenVINO and LiteRT are measured if they are named",
    )
    repeats: int = Field(3, ge=1, le=100, description="number of fresh processes that share the measuring time")
    python: str = Field(
        "", max_length=200, description="Python on the device; empty takes the one that --install made, else python3"
    )
    folder: str = Field(
        "",
        max_length=200,
        pattern=r"^(/.*)?$",
        description="folder there to make edgestill's folder in; empty takes the home folder, or /data/local/tmp",
    )
    architecture: str | None = Field(
        None, max_length=40, description="processor architecture to expect there, as `uname -m` tells it"
    )
    identity: GivenPath | None = Field(None, description="private key to log in with; null takes ssh's own keys")
    known_hosts: GivenPath | None = Field(None, description="file of known host keys; null takes ~/.ssh/known_hosts")
    max_celsius: float = Field(80.0, gt=0, le=150, description="temperature above which nothing is measured there")
    limit_s: float = Field(1800.0, gt=0, le=86_400, description="seconds after which a measurement is given up")

    @field_validator("where")
    @classmethod
    def _is_a_place(cls, where: str) -> str:
        place_of(where)
        return where

    @field_validator("formats")
    @classmethod
    def _runs_there(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for name in formats:
            if name not in FORMATS:
                raise ValueError(f"unknown format {name!r}; {nearest(name, FORMATS)}")
            if not FORMATS[name].is_cpu_onnx and FORMATS[name].runtime not in PACKAGES:
                known = listing(["onnxruntime", *PACKAGES])
                raise ValueError(f"{name} runs in {FORMATS[name].runtime}, and a target is measured in {known}")
        return tuple(dict.fromkeys(("fp32", *formats))) if formats else ()

    @property
    def is_here(self) -> bool:
        return place_of(self.where).scheme == "here"

    @property
    def is_carried(self) -> bool:
        """True if a person carries files and profile."""
        return place_of(self.where).scheme == "folder"

    @property
    def other_runtimes(self) -> tuple[str, ...]:
        """The runtimes beside ONNX Runtime that the named formats need there."""
        return tuple(dict.fromkeys(FORMATS[name].runtime for name in self.formats if not FORMATS[name].is_cpu_onnx))

    def runs(self, name: str) -> bool:
        """True if a format is to be measured there."""
        return name in self.formats if self.formats else FORMATS[name].is_cpu_onnx

    def why_not(self, name: str) -> str:
        """Return a clause on a format that is not measured there."""
        form = FORMATS[name]
        if form.is_cpu_onnx:
            return "its formats leave it out"
        return f"it runs in {form.runtime}" + (", and its formats do not name it" if form.runtime in PACKAGES else "")
