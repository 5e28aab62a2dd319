"""The task of a classifier: its inputs and its classes."""

import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgestill.pipeline.frozen import Frozen, without_none
from edgestill.pipeline.input_kind import INPUT_KINDS, InputKind

if TYPE_CHECKING:
    import torch

    KindName = str
else:
    KindName = Literal[*INPUT_KINDS]

MAX_LABEL = 200  # characters
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control characters, halves of pairs, ends of lines
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"  # they reorder shown text; a byte-order mark


def distinct_names(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names, checked to be distinct single lines of text, in a file as on a screen.

    Raises:
        ValueError: a name is blank, longer than MAX_LABEL or not one line of text; two are equal.
    """
    for label in labels:
        if not label.strip() or any(unicodedata.category(c) in _NO_TEXT or c in _TURNING for c in label):
            raise ValueError(f"{label[:40]!r} is no class name; a name is one line of text that is not blank")
        if len(label) > MAX_LABEL:
            raise ValueError(f"the class name {label[:40]!r}… has {len(label):,} characters; {MAX_LABEL} are allowed")
    if len({label.strip() for label in labels}) < len(labels):
        raise ValueError("two classes have the same name")
    return labels


Labels = Annotated[tuple[str, ...], AfterValidator(distinct_names)]  # class names in order


class Task(Frozen):
    """One classification problem; every stage reads its shapes and labels from here.

    Its inputs' fields are flat, as in JSON; `inputs` is the object that knows their kind.
    """

    kind: KindName = "image"
    labels: Labels = Field(min_length=2)
    input_shape: tuple[int, ...]  # channels, height, width; or the length of a sequence, padding included
    mean: tuple[float, ...] = ()  # of the training pixels in [0, 1], a value a channel
    std: tuple[float, ...] = ()
    resize: Literal["crop", "pad", "stretch"] | None = None  # of pictures (`pipeline/data/pixels.py`); None: not said
    vocab_size: int | None = Field(None, ge=2)  # text: number of token ids, padding included
    tokenizer_sha256: str | None = None  # text: of the tokenizer that gives the ids, if known
    cache: tuple[int, int, int] | None = None  # language: layers, heads and head width of a file's cache

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> InputKind:
        return INPUT_KINDS[self.kind].of(self)

    @property
    def input_dtype(self) -> "torch.dtype":
        import torch

        dtype: torch.dtype = getattr(torch, self.inputs.dtype)
        return dtype

    @model_validator(mode="after")
    def _whole(self) -> "Task":
        _ = self.inputs  # refuses fields of another kind
        if self.resize is not None and self.kind != "image":
            raise ValueError("only an image task has a resize")
        if self.cache is not None and self.kind != "lm":
            raise ValueError("only a language task has a cache")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a task without later fields where they are not set, so that earlier digests stay the same."""
        return without_none(handler(self), "resize", "vocab_size", "tokenizer_sha256", "cache")
