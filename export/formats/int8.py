"""8-bit weights and activations for ONNX Runtime's CPU kernels: QDQ, unsigned activations."""

from edgestill.export.formats.calibrated import CpuInt8
from edgestill.export.onnx.quantize import CPU


class Int8(CpuInt8):
    name = "int8"
    scheme = CPU
