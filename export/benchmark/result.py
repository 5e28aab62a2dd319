"""Table of a benchmark: a row for each format."""

from typing import Literal

from pydantic import Field

from edgestill.export.result import Ratio
from edgestill.pipeline.frozen import Count, Frozen, Share


class Agreement(Frozen):
    """Share of inputs on which a format answers as fp32 does."""

    share: Share
    n: Count
    interval: tuple[float, float]  # 95 %, Wilson


class Row(Frozen):
    """One format, as it was measured."""

    format: str
    runtime: str
    size_bytes: int
    accuracy: Share | None  # on the maker's test split; None: not known
    agreement: Agreement | None  # with fp32, on this benchmark's inputs; None: there is no fp32
    p50_ms: float
    p90_ms: float | None  # None: too few calls support it
    over_fp32: Ratio | None  # speed over fp32's; None: it is fp32, or there is none
    memory_bytes: int | None  # that the runtime, the file and a call add to a fresh process; None: not told there
    first_answer_ms: float | None  # in a fresh process: import of the runtime, opening, one call; None: not told there


class Benchmark(Frozen):
    """Every format of a bundle on one machine."""

    schema_name: Literal["edgestill.benchmark/1"] = Field("edgestill.benchmark/1", alias="schema")
    bundle: str  # its name
    digest: str
    target: str
    cpu: str
    threads: int
    inputs: str  # what the formats answered, in words
    rows: tuple[Row, ...]
    left_out: dict[str, str] = {}  # format -> why it was not measured


class Benchmarks(Frozen):
    """Every format of a bundle on several targets."""

    schema_name: Literal["edgestill.benchmarks/1"] = Field("edgestill.benchmarks/1", alias="schema")
    targets: tuple[Benchmark, ...]
