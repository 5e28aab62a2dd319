"""8-bit weights and activations as ONNX Runtime's CPU kernels want them: QDQ, unsigned activations."""

from export.formats.calibrated import CpuInt8
from export.quantize import CPU


class Int8(CpuInt8):
    name = "int8"
    scheme = CPU
