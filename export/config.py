"""Settings of export and of its measurements."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, create_model, field_validator

from edgestill.export.formats import FORMATS
from edgestill.pipeline.errors import nearest
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.timing.timing import MedianTimingConfig, TimingConfig

if TYPE_CHECKING:
    from edgestill.export.calibration import Int8Keys
    from edgestill.export.formats.executorch import ExecutorchKeys
    from edgestill.export.formats.tensorrt import TensorRTKeys

    class _KeysOfFormats(TensorRTKeys, ExecutorchKeys, Int8Keys): ...

else:  # the union over the table; keys of later bases come first
    _kinds = dict.fromkeys(form.Config for form in FORMATS.values() if form.Config.model_fields)
    _KeysOfFormats = create_model("_KeysOfFormats", __base__=tuple(reversed(_kinds)))


class GateConfig(Frozen):
    """Conditions for a format to ship beside fp32."""

    max_accuracy_drop: float = Field(
        0.005,
        ge=0,
        le=1,
        description="largest drop of accuracy, or of distill.training.metric, below fp32 on validation, as a share",
    )
    min_speedup: float = Field(1.05, ge=1, description="least speedup over fp32, by the lower end of its 95% interval")
    min_shrink: float = Field(
        1.5, ge=1, description="least factor by which a file that is not faster must be smaller than fp32's"
    )
    max_slowdown: float = Field(
        1.2, ge=1, description="largest factor by which a smaller file may be slower than fp32's"
    )


class _SharedKeys(Frozen):
    interface: Literal["raw", "image"] = Field(
        "raw",
        description="signature; raw: floats in [0, 1] or token ids to logits; image: uint8 NHWC to probabilities",
    )
    opset: int = Field(20, ge=18, le=23, description="ONNX operator set; lower ones suit older runtimes")
    formats: tuple[str, ...] = Field(
        ("fp32", "fp16", "int8"), description=f"formats to try, of {', '.join(FORMATS)}; fp32 is always made"
    )
    gate: GateConfig = GateConfig()

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for name in formats:
            if name not in FORMATS:
                raise ValueError(f"unknown format {name!r}; {nearest(name, FORMATS)}")
        return tuple(dict.fromkeys(("fp32", *formats)))


class ExportConfig(_KeysOfFormats, _SharedKeys):
    """Settings of export: those that all formats share, then the formats' own."""


class ProfileConfig(Frozen):
    threads: int = Field(1, ge=1, le=1024, description="number of CPU threads of the runtime")
    timing: MedianTimingConfig = TimingConfig()
