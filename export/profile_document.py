"""A latency profile as it travels: one JSON file with every sample, from this machine or from a device."""

import math
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.child import ChildError, ChildRefused, answer
from pipeline.errors import DataError, printable
from pipeline.foreign import read_bounded
from pipeline.frozen import Frozen
from pipeline.latency_statistics import describe_samples

SCHEMA = "edgestill.profile/1"
_MOST_BYTES = 1 << 26  # 5 million samples

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Interval = tuple[Finite, Finite]


class GivenInput(Frozen):
    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class ColdStart(Frozen):
    """Of one fresh process; the import is onnxruntime's, with numpy there."""

    import_ms: Milliseconds
    load_ms: Milliseconds
    first_call_ms: Milliseconds
    peak_rss_bytes: int | None
    added_rss_bytes: int | None  # by loading the model and calling it


class MeasuredModel(Frozen):
    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1)
    format: str | None = None
    precision: str | None = None
    inputs: tuple[GivenInput, ...]
    cold: tuple[ColdStart, ...]


class Summary(Frozen):
    """Of all processes' samples; no sample is left out."""

    n: int = Field(ge=1)
    mean_ms: Milliseconds
    min_ms: Milliseconds
    max_ms: Milliseconds
    cv: Finite
    percentiles: dict[str, Milliseconds]  # those that n supports: p50_ms, …
    bounds: dict[str, Interval]  # 95 %, by order statistics


class Process(Frozen):
    p50_ms: Milliseconds | None
    p90_ms: Milliseconds | None
    drift: tuple[Finite, Interval] | None  # last third over first, minus 1, and its 95 % interval
    samples_ms: tuple[Milliseconds, ...]


class Result(Frozen):
    """One model at one batch and number of threads."""

    model: str
    batch: int = Field(ge=1)
    threads: int = Field(ge=1)
    summary: Summary
    throughput_per_s: Finite  # inputs, one call after the other
    p50_spread: Finite | None  # the range of the processes' medians over their median
    p90_spread: Finite | None
    energy_mj: Finite | None  # a call
    processes: tuple[Process, ...]

    @model_validator(mode="after")
    def _summary_is_of_its_samples(self) -> "Result":
        pooled = list(chain.from_iterable(process.samples_ms for process in self.processes))
        if len(pooled) != self.summary.n or not _same(self.summary, Summary(**describe_samples(pooled))):
            raise ValueError("the summary is not that of the samples")
        return self


def _same(found: Summary, expected: Summary) -> bool:
    """Sums differ between machines in their last digits, samples and ranks do not."""
    sums = all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
        for a, b in ((found.mean_ms, expected.mean_ms), (found.cv, expected.cv))
    )
    exact = {"mean_ms", "cv"}
    return sums and found.model_dump(exclude=exact) == expected.model_dump(exclude=exact)


class Comparison(Frozen):
    """How many times as fast as another model one is; they took turns."""

    model: str
    against: str
    batch: int
    threads: int
    ratio: Finite
    interval: Interval  # 95 %, of what varied within the processes
    process_ratios: tuple[Finite, ...]


class Runtime(Frozen):
    name: str
    provider: str
    graph_optimization: str
    inter_op_threads: int
    spinning: bool
    numpy: str


class ProfileDocument(Frozen):
    """What `edgestill profile` and a bundle's profile.py write."""

    schema_name: Literal["edgestill.profile/1"] = Field("edgestill.profile/1", alias="schema")
    created: str
    remeasure: str  # the command that measures all this again
    architecture: str | None  # SPACE:STUDENT, where the bundle says
    device: dict[str, Any]
    runtime: Runtime
    method: dict[str, Any]
    models: dict[str, MeasuredModel]
    results: tuple[Result, ...] = Field(min_length=1)
    comparisons: tuple[Comparison, ...]
    loads: tuple[dict[str, float | None], ...] = Field(min_length=1)  # of each process
    energy: str
    warnings: tuple[str, ...]

    @model_validator(mode="after")
    def _models_are_described(self) -> "ProfileDocument":
        missing = {result.model for result in self.results} - self.models.keys()
        if missing:
            raise ValueError(f"results of models that are not described: {', '.join(sorted(missing))}")
        if not isinstance(self.device.get("cores"), int):
            raise ValueError(f"the device's cores are {self.device.get('cores')!r}, not a number")
        return self

    @property
    def title(self) -> str:
        """The device, as a person would call it."""
        return str(self.device.get("name") or self.device.get("cpu") or "unknown device")


def read_profile(path: Path) -> ProfileDocument:
    """A profile back from its file.

    Raises:
        DataError: it cannot be read, is of another schema, or its summaries are not of its samples; one sentence.
    """
    data = read_bounded(path, _MOST_BYTES)
    try:
        answer("export.profile_document:checked", data, memory_bytes=2**30 + 20 * len(data))
        return ProfileDocument.model_validate_json(data)
    except ChildRefused as error:
        raise DataError(f"{path} {error}") from None
    except ChildError as error:
        raise DataError(f"{path} {error}: it is no profile of {SCHEMA}") from None


def checked(data: bytes) -> bytes:
    """Nothing, of a profile; for a child, which may complain of each of millions of wrong values.

    Raises:
        DataError: it is none.
    """
    try:
        ProfileDocument.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"is no profile of {SCHEMA}: {printable(f'{where[:80]}: {message[:200]}')}") from None
    return b""
