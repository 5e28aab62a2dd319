"""Table of the forms a student can ship in; a new one adds its file and its line here, or is of another package."""

from typing import Any

from edgestill.export.formats.base import Format, Source
from edgestill.export.formats.coreml import CoreML
from edgestill.export.formats.executorch import ExecuTorch, ExecuTorchInt8
from edgestill.export.formats.fp16 import Fp16
from edgestill.export.formats.fp32 import Fp32
from edgestill.export.formats.int8 import Int8
from edgestill.export.formats.int8_dynamic import Int8Dynamic
from edgestill.export.formats.litert import LiteRT
from edgestill.export.formats.openvino import OpenVinoFloat
from edgestill.export.formats.openvino_int8 import OpenVinoInt8, OpenVinoW8
from edgestill.export.formats.ort import OrtFile
from edgestill.export.formats.providers import CUDA, TENSORRT, OnProvider
from edgestill.export.formats.tensorrt import TensorRT
from edgestill.export.onnx.quantize import FOR_CPU, FOR_TENSORRT
from edgestill.pipeline.plugins import Table, require_attributes, require_class

# Others are made from these.
_FP32, _FP16, _INT8, _INT8_TENSORRT = Fp32(), Fp16(), Int8("int8", FOR_CPU), Int8("int8_tensorrt", FOR_TENSORRT)
_ALL: tuple[Format, ...] = (
    _FP32,
    _FP16,
    _INT8,
    Int8Dynamic(),
    _INT8_TENSORRT,
    OrtFile("ort_fp32", _FP32),
    OrtFile("ort_int8", _INT8),
    OpenVinoFloat("openvino", "fp32"),
    OpenVinoFloat("openvino_fp16", "fp16"),
    OpenVinoInt8(),
    OpenVinoW8(),
    ExecuTorch(),
    ExecuTorchInt8(),
    LiteRT("litert", "fp32"),
    LiteRT("litert_fp16", "fp16", "fp16"),
    LiteRT("litert_int8", "int8", "int8"),
    LiteRT("litert_w8", "int8", "w8"),
    LiteRT("litert_w8a16", "int8", "w8a16"),
    CoreML("coreml", "fp16"),
    CoreML("coreml_w8", "int8"),
    OnProvider("cuda_fp32", CUDA, _FP32),
    OnProvider("cuda_fp16", CUDA, _FP16),
    OnProvider("ort_tensorrt_fp16", TENSORRT, _FP16),
    OnProvider("ort_tensorrt_int8", TENSORRT, _INT8_TENSORRT),
    TensorRT("tensorrt_fp16", _FP16),
    TensorRT("tensorrt_int8", _INT8_TENSORRT),
)


def _line(name: str, found: Any) -> Format:
    """Read an entry point: a Format, or a class of one that is made without arguments."""
    if not isinstance(found, Format):
        require_class(found, Format)
        require_attributes(found, name, "precision", "runtime", "suffix")
        return found()  # type: ignore[no-any-return]
    require_attributes(found, name, "precision", "runtime", "suffix")
    return found


FORMATS: Table[Format] = Table("formats", _line, {form.name: form for form in _ALL})

__all__ = ["FORMATS", "Format", "Source"]
