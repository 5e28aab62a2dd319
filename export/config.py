"""Settings of export and of its measurements."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from edgestill.export.calibration import MIN_EXAMPLES
from edgestill.export.formats import FORMATS
from edgestill.pipeline.errors import nearest
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.timing.timing import MedianTimingConfig, TimingConfig


class CalibrationConfig(Frozen):
    """Settings to find the ranges of INT8 activations, on examples of the reference split (docs/export.md)."""

    method: Literal["auto", "minmax", "entropy", "percentile"] = Field(
        "auto", description="auto makes all three and keeps the file that is best on validation"
    )
    percentile: float = Field(99.99, gt=50, lt=100, description="of the values inside the range, in percent")
    examples: int = Field(256, ge=MIN_EXAMPLES, le=100_000, description="of the reference split, at most")


class GateConfig(Frozen):
    """Conditions for a format to ship beside fp32."""

    max_accuracy_drop: float = Field(0.005, ge=0, le=1, description="below fp32's on validation, as a share")
    min_speedup: float = Field(1.05, ge=1, description="over fp32, by the lower end of its 95% interval")
    min_shrink: float = Field(1.5, ge=1, description="times smaller than fp32's file, where it is not faster")
    max_slowdown: float = Field(1.2, ge=1, description="times slower than fp32 that a smaller file may be")


class TensorRTConfig(Frozen):
    """Batch sizes of an engine: any up to the largest, fastest at the optimal one."""

    optimal_batch: int = Field(1, ge=1, description="the batch that its kernels are chosen for")
    max_batch: int = Field(64, ge=1, le=4096, description="the largest; a larger batch goes in parts")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.optimal_batch > self.max_batch:
            raise ValueError(f"optimal_batch {self.optimal_batch} is above max_batch {self.max_batch}")
        return self


class ExecutorchConfig(Frozen):
    max_batch: int = Field(
        8, ge=1, le=1024, description="memory is planned for this batch; a larger one goes in parts, 1 is leanest"
    )


class ExportConfig(Frozen):
    interface: Literal["raw", "image"] = Field(
        "raw",
        description="raw: floats in [0, 1] to logits; image: uint8 [B, H, W, C] to probabilities",
    )
    opset: int = Field(20, ge=18, le=23, description="ONNX operator set; lower ones suit older runtimes")
    formats: tuple[str, ...] = Field(
        ("fp32", "fp16", "int8"), description=f"to try, of {', '.join(FORMATS)}; fp32 is always made"
    )
    calibration: CalibrationConfig = CalibrationConfig()
    weight_bits: Literal[7, 8] = Field(
        7, description="of INT8 weights; 8 where every device has VNNI, Arm or a GPU: others may saturate"
    )
    gate: GateConfig = GateConfig()
    tensorrt: TensorRTConfig = TensorRTConfig()
    executorch: ExecutorchConfig = ExecutorchConfig()

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for name in formats:
            if name not in FORMATS:
                raise ValueError(f"unknown format {name!r}; {nearest(name, FORMATS)}")
        return tuple(dict.fromkeys(("fp32", *formats)))


class ProfileConfig(Frozen):
    threads: int = Field(1, ge=1, le=1024, description="of ONNX Runtime")
    timing: MedianTimingConfig = TimingConfig()
