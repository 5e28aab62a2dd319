"""What export and its measurements can be told."""

from typing import Literal

from pydantic import Field, field_validator

from pipeline.frozen import Frozen
from pipeline.timing import TimingConfig, samples_needed


class ExportConfig(Frozen):
    interface: Literal["raw", "image"] = Field(
        "raw",
        description="raw: floats in [0, 1] to logits; image: uint8 [B, H, W, C] to probabilities",
    )
    opset: int = Field(20, ge=18, le=23, description="ONNX operator set; lower ones suit older runtimes")


class ProfileConfig(Frozen):
    threads: int = Field(1, ge=1, le=1024, description="of ONNX Runtime")
    timing: TimingConfig = TimingConfig()

    @field_validator("timing")
    @classmethod
    def _supports_a_median(cls, timing: TimingConfig) -> TimingConfig:
        needed = samples_needed(50)
        if min(timing.min_samples, timing.max_samples) < needed:
            raise ValueError(f"min_samples and max_samples must be {needed} or more, or there is no median to report")
        return timing
