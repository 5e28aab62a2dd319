"""The forms that a student can ship in; a new one adds its file and its line here."""

from export.formats.base import Format, Run, Source
from export.formats.fp32 import Fp32

FORMATS: dict[str, type[Format]] = {
    "fp32": Fp32,
}

__all__ = ["FORMATS", "Format", "Run", "Source"]
