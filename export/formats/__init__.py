"""The forms that a student can ship in; a new one adds its file and its line here."""

from export.formats.base import Format, Run, Source
from export.formats.fp16 import Fp16
from export.formats.fp32 import Fp32
from export.formats.int8 import Int8
from export.formats.int8_tensorrt import Int8TensorRT

FORMATS: dict[str, type[Format]] = {
    "fp32": Fp32,
    "fp16": Fp16,
    "int8": Int8,
    "int8_tensorrt": Int8TensorRT,
}

__all__ = ["FORMATS", "Format", "Run", "Source"]
