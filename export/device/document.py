"""Latency profile as a JSON file with every sample, from this machine or from a device."""

import math
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from edgestill.pipeline.child import ChildError, ChildRefused, answer
from edgestill.pipeline.errors import DataError, printable
from edgestill.pipeline.foreign import read_bounded
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.timing.latency_statistics import describe_samples

SCHEMA = "edgestill.profile/1"
_MOST_BYTES = 1 << 26  # 5 million samples

# A profile may come from anybody's device, so every number is limited to a displayable range and every text is short.
Milliseconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=1, le=2**31)]
Interval = tuple[Finite, Finite]
Name = Annotated[str, Field(max_length=200)]
Words = Annotated[str, Field(max_length=2000)]
Fact = Annotated[list[Whole], Field(max_length=4096)] | bool | Whole | Finite | Words | None


class GivenInput(Frozen):
    name: Name
    dtype: Name
    shape: tuple[Whole | Name | None, ...] = Field(max_length=64)


class ColdStart(Frozen):
    """Cold start in one fresh process; the import is onnxruntime's, with numpy already loaded."""

    import_ms: Milliseconds
    load_ms: Milliseconds
    first_call_ms: Milliseconds
    peak_rss_bytes: Whole | None
    added_rss_bytes: Whole | None  # by loading the model and calling it


class MeasuredModel(Frozen):
    file: Name
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1, le=2**53)
    format: Name | None = None
    precision: Name | None = None
    runtime: Name | None = None  # with its version, where it is not ONNX Runtime
    inputs: tuple[GivenInput, ...] = Field(max_length=64)
    cold: tuple[ColdStart, ...] = Field(max_length=1000)


class Summary(Frozen):
    """Summary of all processes' samples; no sample is left out."""

    n: Count
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
    samples_ms: tuple[Milliseconds, ...] = Field(min_length=1)


class Result(Frozen):
    """Result of one model at one batch and number of threads."""

    model: Name
    batch: Count
    threads: Count
    summary: Summary
    throughput_per_s: Finite  # inputs, one call after the other
    p50_spread: Finite | None  # the range of the processes' medians over their median
    p90_spread: Finite | None
    energy_mj: Finite | None  # a call
    processes: tuple[Process, ...] = Field(max_length=1000)

    @model_validator(mode="after")
    def _summary_is_of_its_samples(self) -> "Result":
        pooled = list(chain.from_iterable(process.samples_ms for process in self.processes))
        if not any(pooled):
            raise ValueError("no call took any time")
        if len(pooled) != self.summary.n or not _same(self.summary, Summary(**describe_samples(pooled))):
            raise ValueError("the summary is not that of the samples")
        return self


def _same(found: Summary, expected: Summary) -> bool:
    """True if the summaries agree: sums up to the last digits, which differ between machines, all else exactly."""
    sums = all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
        for a, b in ((found.mean_ms, expected.mean_ms), (found.cv, expected.cv))
    )
    exact = {"mean_ms", "cv"}
    return sums and found.model_dump(exclude=exact) == expected.model_dump(exclude=exact)


class Comparison(Frozen):
    """Speed of a model as a multiple of another's; they took turns."""

    model: Name
    against: Name
    batch: Count
    threads: Count
    ratio: Finite
    interval: Interval  # 95 %, of the variation within the processes
    process_ratios: tuple[Finite, ...] = Field(max_length=1000)


class Runtime(Frozen):
    name: Name
    provider: Name
    graph_optimization: Name
    inter_op_threads: Whole
    spinning: bool
    numpy: Name


class Facts(Frozen):
    """Facts for a page to list; a device may send more of them than this version knows."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, Fact]

    @property
    def told(self) -> dict[str, Fact]:
        return {key: value for key, value in self if value is not None}


class Device(Facts):
    """Device, as described by `export/device/facts.py`."""

    name: Name | None = None  # of a board
    cpu: Name | None = None
    architecture: Name | None = None
    cores: int = Field(ge=1, le=2**20)
    affinity: list[Whole] | None = Field(None, max_length=4096)
    is_virtual: bool | None = None
    governor: Name | None = None
    turbo: bool | None = None
    max_mhz: Finite | None = None
    ram_bytes: Whole | None = None
    os: Name | None = None
    kernel: Name | None = None
    python: Name | None = None


class Method(Facts):
    """Method of measurement, as told by `export/device/measure.py`."""

    duration_s: Finite | None = None
    repeats: Count | None = None
    turn: int = Field(10, ge=1, le=10**6)  # timed calls of a model between two changes
    examples: Words | None = None


class ProfileDocument(Frozen):
    """Profile, as written by `edgestill profile` and by a bundle's profile_device.py."""

    schema_name: Literal["edgestill.profile/1"] = Field("edgestill.profile/1", alias="schema")
    created: Name
    remeasure: Annotated[str, Field(max_length=10_000)]  # the command that measures all this again
    architecture: Words | None  # SPACE:STUDENT, where the bundle says
    device: Device
    runtime: Runtime
    method: Method
    models: dict[Name, MeasuredModel] = Field(max_length=100)
    results: tuple[Result, ...] = Field(min_length=1, max_length=1000)
    comparisons: tuple[Comparison, ...] = Field(max_length=1000)
    loads: tuple[dict[Name, Finite | None], ...] = Field(min_length=1, max_length=10_000)  # of each process
    energy: Words
    warnings: tuple[Words, ...] = Field(max_length=100)

    @model_validator(mode="after")
    def _models_are_described(self) -> "ProfileDocument":
        missing = {result.model for result in self.results} - self.models.keys()
        if missing:
            raise ValueError(f"results of models that are not described: {', '.join(sorted(missing))}")
        settings = [(result.model, result.batch, result.threads) for result in self.results]
        if len(set(settings)) < len(settings):
            raise ValueError("two results are of the same model, batch and threads")
        return self

    @property
    def title(self) -> str:
        """Name of the device for a reader."""
        return self.device.name or self.device.cpu or "unknown device"


def read_profile(path: Path) -> ProfileDocument:
    """Read a profile from its file.

    Raises:
        DataError: in one sentence: it cannot be read, is of another schema, or its summaries are not of its samples.
    """
    return parse_profile(read_bounded(path, _MOST_BYTES), str(path))


def parse_profile(data: bytes, name: str) -> ProfileDocument:
    """Read a profile from its bytes; `name` names it in an error.

    Raises:
        DataError: as for `read_profile`.
    """
    try:
        answer("edgestill.export.device.document:checked", data, memory_bytes=2**30 + 20 * len(data))
        return ProfileDocument.model_validate_json(data)
    except ChildRefused as error:
        raise DataError(f"{name} {error}") from None
    except ChildError as error:
        raise DataError(f"{name} {error}: it is no profile of {SCHEMA}") from None


def checked(data: bytes) -> bytes:
    """Check a profile and return no bytes; for a child, since validation may list millions of wrong values.

    Raises:
        DataError: it is none.
    """
    try:
        ProfileDocument.model_validate_json(data)
    except ArithmeticError as error:
        raise DataError(f"is no profile of {SCHEMA}: its samples cannot be summed ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        found = "" if isinstance(first["input"], dict | list) else f" (found {str(first['input'])[:60]!r})"
        raise DataError(f"is no profile of {SCHEMA}: {printable(f'{where[:80]}: {message[:200]}{found}')}") from None
    return b""
