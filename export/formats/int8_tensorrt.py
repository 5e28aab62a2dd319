"""8-bit weights and activations for TensorRT: symmetric, signed, weights in float behind QDQ pairs.

An engine is built from it. On a CPU it is slower than fp32 and no smaller, as the gate then reports.
"""

from edgestill.export.formats.calibrated import CpuInt8
from edgestill.export.onnx.quantize import TENSORRT


class Int8TensorRT(CpuInt8):
    name = "int8_tensorrt"
    scheme = TENSORRT
