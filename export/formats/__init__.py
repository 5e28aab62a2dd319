"""Table of the forms a student can ship in; a new one adds its file and its line here."""

from edgestill.export.formats.base import Format, Source
from edgestill.export.formats.executorch import ExecuTorch
from edgestill.export.formats.fp16 import Fp16
from edgestill.export.formats.fp32 import Fp32
from edgestill.export.formats.int8 import Int8
from edgestill.export.formats.int8_tensorrt import Int8TensorRT
from edgestill.export.formats.openvino import OpenVino, OpenVinoFp16, OpenVinoInt8
from edgestill.export.formats.providers import CudaFp16, CudaFp32, OrtTensorRTFp16, OrtTensorRTInt8
from edgestill.export.formats.tensorrt import TensorRTFp16, TensorRTInt8

FORMATS: dict[str, type[Format]] = {
    "fp32": Fp32,
    "fp16": Fp16,
    "int8": Int8,
    "int8_tensorrt": Int8TensorRT,
    "openvino": OpenVino,
    "openvino_fp16": OpenVinoFp16,
    "openvino_int8": OpenVinoInt8,
    "executorch": ExecuTorch,
    "cuda_fp32": CudaFp32,
    "cuda_fp16": CudaFp16,
    "ort_tensorrt_fp16": OrtTensorRTFp16,
    "ort_tensorrt_int8": OrtTensorRTInt8,
    "tensorrt_fp16": TensorRTFp16,
    "tensorrt_int8": TensorRTInt8,
}

__all__ = ["FORMATS", "Format", "Source"]
