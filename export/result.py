"""Results of export and of profiling."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from edgestill.pipeline.frozen import Count, Frozen, Share, without_none
from edgestill.pipeline.runs.manifest import RunPath
from edgestill.pipeline.training.difference import Difference
from edgestill.pipeline.training.metrics import Metrics


class Parity(Frozen):
    """Distance of the file's logits from the reference's."""

    max_abs_difference: float  # of a logit
    top1_agreement: Share  # share of inputs with the same arg max
    n: Count
    checked: tuple[str, ...]  # the kinds of inputs
    reference: str = "torch"  # or fp32: the fp32 file, which is within 1e-4 of torch
    relative_difference: float = 0.0  # the largest difference over the reference's largest logit
    agreement_interval: tuple[float, float] | None = None  # 95 %, Wilson


class Arithmetic(Frozen):
    """Dependence of an INT8 file's answers on the processor (`export.onnx.saturation`)."""

    saturable: int  # products that may saturate where there is no VNNI; 0: every processor computes the same
    measured_on: tuple[str, ...]  # instruction sets that 8-bit products used where its accuracy was measured
    # Figure on validation that chooses, `saturating` and `exact`, where they may differ; the worse counts.
    accuracy: dict[str, float] = {}
    unknown: str = ""  # why only one of them is known


_NEWER = ("in_float", "equalized", "bias_corrected", "for_speed")  # fields that are written where they say something


class ConvertedModel(Frozen):
    """File checked against the network; cannot exist without the parity measured on it."""

    path: RunPath
    sha256: str
    size_bytes: int  # of all its files
    precision: str
    opset: int
    parity: Parity
    format: str = "fp32"
    runtime: str = "onnxruntime"
    beside: tuple[RunPath, ...] = ()  # further files of the same model
    variant: str = ""  # the format's best variant on validation: a calibration method
    tried: dict[str, float] = {}  # of each variant the figure on validation that chooses, the accuracy as a rule
    validation: Metrics | None = None  # of the file
    lost: int = 0  # validation examples that fp32 answers right and this file does not
    gained: int = 0  # and the other way round
    arithmetic: Arithmetic | None = None  # of an INT8 file
    difference: Difference | None = None  # of its mean recall from fp32's, where that chooses
    # Layers of an INT8 file left in float, worst first, with the damage of each alone in 8 bits: RMS of the change of
    # logits over the RMS of their spread.
    in_float: dict[str, float] = {}
    equalized: int = 0  # pairs of layers of an INT8 file between which channels' ranges were equalised
    bias_corrected: bool = False  # biases of an INT8 file give fp32's mean to each channel
    for_speed: tuple[str, ...] = ()  # layers of an INT8 file left in float, as 8 bits there cost time

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields at their defaults, so that files and digests from before them stay the same."""
        written = without_none(handler(self), "difference")
        return {key: value for key, value in written.items() if key not in _NEWER or value}


class Speed(Frozen):
    """Speed of a language model's file at batch 1, by medians of calls in turns."""

    prompt_tokens: int
    first_token_ms: float  # of a whole prompt, without a cache
    next_token_ms: float  # of one token after a cache of half the longest text
    tokens_per_second: float  # after the first


class Absent(Frozen):
    """Format asked for, but without a usable file."""

    format: str
    reason: str
    skipped: bool  # its library or device is not here; False: making or opening it failed


class ConvertResult(Frozen):
    teacher: ConvertedModel | None  # None: it has no ONNX form, as answers in a file
    student: ConvertedModel  # fp32
    others: dict[str, ConvertedModel] = {}  # the student's other formats, by name
    absent: tuple[Absent, ...] = ()

    @property
    def formats(self) -> dict[str, ConvertedModel]:
        """Every file of the student, fp32 first."""
        return {"fp32": self.student, **self.others}


class Latency(Frozen):
    """Wall time of one call; only the percentiles supported by the sample."""

    runtime: str
    provider: str
    threads: int
    batch: int
    summary: dict[str, float | int]  # n, p50_ms, …; copies to and from a device included
    parts: dict[str, dict[str, float | int]] = {}  # of a device's calls: copy_in, execute, copy_out, timed singly

    @property
    def p50_ms(self) -> float:
        return float(self.summary["p50_ms"])


class ExportedModel(ConvertedModel):
    """File that can ship; cannot exist without the parity and the latency measured on it."""

    latency: Latency


class Ratio(Frozen):
    """Speed ratio, by typical times of interleaved turns, with its 95 % interval."""

    value: float
    interval: tuple[float, float]

    @property
    def both(self) -> tuple[float, tuple[float, float]]:
        return self.value, self.interval


class Verdict(Frozen):
    """Decision to ship a format or not, with the reason."""

    format: str
    shipped: bool
    reason: str
    skipped: bool = False  # its library or device is not here
    over_fp32: Ratio | None = None  # its speed over fp32's; None where it was not timed

    @property
    def word(self) -> str:
        """Verdict in a word: `ships`, `skipped` or `rejected`."""
        return "ships" if self.shipped else "skipped" if self.skipped else "rejected"

    @property
    def sentence(self) -> str:
        """Verdict in a sentence: `int8 rejected: 1.51× slower than fp32 …`."""
        return f"{self.format} {self.word}: {self.reason}"


class OnTarget(Frozen):
    """Student's files as one target measured them."""

    name: str  # of the target
    device: str  # as the device calls itself
    architecture: str | None
    runtime: str
    threads: int
    latencies: dict[str, Latency]  # of each format measured there
    verdicts: tuple[Verdict, ...]
    default: str | None  # None: nothing ships for it
    why_none: str = ""
    speedup: Ratio | None = None  # the teacher's p50 over the default file's
    notes: tuple[str, ...] = ()  # on the measurement, a sentence each


class ProfileResult(Frozen):
    teacher: ExportedModel | None  # None: it has no ONNX form, as answers in a file
    formats: dict[str, ExportedModel]  # the student's files, timed
    speedups: dict[str, Ratio]  # of each over the teacher; empty without its file
    verdicts: tuple[Verdict, ...]  # one for each format that was asked for
    default: str  # format run if nobody chooses: the fastest that ships
    cpu: str
    load_before: float | None  # 1-minute load average as the timing began; None: the system does not say
    over_budget: tuple[str, ...] = ()  # limits that the default file exceeds
    speed: Speed | None = None  # of the default file of a language model
    targets: tuple[OnTarget, ...] = ()  # configured devices; the figures above are the first one's

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields at their defaults, so that digests of earlier versions' results stay the same."""
        written = without_none(handler(self), "speed")
        if not self.targets:
            written.pop("targets", None)
        return written

    @property
    def defaults(self) -> dict[str, str]:
        """Each target's default format, of those that have one."""
        return {target.name: target.default for target in self.targets if target.default is not None}

    @property
    def student(self) -> ExportedModel:
        """The default file."""
        return self.formats[self.default]

    @property
    def speedup(self) -> Ratio | None:
        """The teacher's p50 over the default file's, by typical turns; None without the teacher's file."""
        return self.speedups.get(self.default)

    @property
    def shipped(self) -> dict[str, ExportedModel]:
        """Files for the bundle, by format."""
        return {v.format: self.formats[v.format] for v in self.verdicts if v.shipped}
