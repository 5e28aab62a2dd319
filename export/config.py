"""What export and its measurements can be told."""

from pydantic import Field

from pipeline.frozen import Frozen
from pipeline.timing import TimingConfig


class ExportConfig(Frozen):
    opset: int = Field(20, ge=18, le=23, description="ONNX operator set; lower ones suit older runtimes")


class ProfileConfig(Frozen):
    threads: int = Field(1, ge=1, le=1024, description="of ONNX Runtime")
    timing: TimingConfig = TimingConfig()
