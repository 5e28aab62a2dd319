"""The table of kinds of input: each has a file of its own and a line here."""

from edgestill.pipeline.input_kind.base import InputKind
from edgestill.pipeline.input_kind.image import Images
from edgestill.pipeline.input_kind.lm import Prompts
from edgestill.pipeline.input_kind.text import Texts

INPUT_KINDS: dict[str, type[InputKind]] = {
    "image": Images,
    "text": Texts,
    "lm": Prompts,
}

__all__ = ["INPUT_KINDS", "Images", "InputKind", "Prompts", "Texts"]
