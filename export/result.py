"""What export and profiling hand on."""

from pipeline.frozen import Frozen


class Parity(Frozen):
    """How far the file's logits are from torch's."""

    max_abs_difference: float  # of a logit
    top1_agreement: float  # share of inputs with the same arg max
    n: int
    checked: tuple[str, ...]  # the kinds of inputs


class ConvertedModel(Frozen):
    """An ONNX file that was checked against the network; cannot exist without the parity measured on it."""

    path: str  # relative to the run
    sha256: str
    size_bytes: int
    precision: str
    opset: int
    parity: Parity


class ConvertResult(Frozen):
    teacher: ConvertedModel
    student: ConvertedModel


class Latency(Frozen):
    """Wall time of one call in ONNX Runtime; only the percentiles that the sample supports."""

    runtime: str
    provider: str
    threads: int
    batch: int
    summary: dict[str, float | int]  # n, p50_ms, …

    @property
    def p50_ms(self) -> float:
        return float(self.summary["p50_ms"])


class ExportedModel(ConvertedModel):
    """What can ship: cannot exist without the parity and the latency measured on it."""

    latency: Latency


class ProfileResult(Frozen):
    teacher: ExportedModel
    student: ExportedModel
    speedup: float  # teacher's p50 over student's
    speedup_interval: tuple[float, float]  # 95 %, bootstrap over the interleaved turns
    cpu: str
    load_before: float  # 1-minute load average as the timing began
