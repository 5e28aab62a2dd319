"""Predicts labels and probabilities with a bundle; reads images and texts as its run.py does."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgestill.export.bundle.foreign_run import open_foreign
from edgestill.export.bundle.image_child import MAX_BYTES
from edgestill.export.bundle.probes import run_checked
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.bundle.schema import TOKENIZER
from edgestill.export.quality import softmax
from edgestill.pipeline.child import ChildError, answer
from edgestill.pipeline.data.pixels import DEFAULT_RESIZE
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.errors import BundleError, DataError, printable
from edgestill.pipeline.foreign import read_bounded
from edgestill.pipeline.task import Task

_MEMORY = 2**31  # some copies of the largest image allowed
_AT_ONCE, _AT_ONCE_BYTES = 64, 2**24  # images per child, and bytes of their files


class Answer(NamedTuple):
    input: str  # as it was given
    label: str
    probability: float
    probabilities: tuple[float, ...]  # of each class, in the order of the labels


def predict(
    opened: OpenedBundle,
    given: Sequence[str],
    model: str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Answer]:
    """Return the answers to image files, or to texts.

    Args:
        model: by its format's name; None: the bundle's default.
        note: called with a line for each resized image.

    Raises:
        BundleError: there is no such model; the tokenizer gives ids unknown to the model.
        ExportError: its runtime refuses the file, or is not here; its answer is not a finite logit a class.
        DataError: an image cannot be read, or a text has nothing in it.
    """
    task = opened.bundle.task
    chosen = opened.model(model)
    run = open_foreign(opened, chosen, singly=True)
    inputs = _READERS[task.kind](given, opened, note)
    logits = run_checked(run, chosen, np.stack(inputs), task.num_classes)
    answers = []
    for name, shares in zip(given, softmax(logits.astype(np.float64)), strict=True):
        best = int(shares.argmax())
        answers.append(Answer(name, task.labels[best], float(shares[best]), tuple(map(float, shares))))
    return answers


def _images(paths: Sequence[str], opened: OpenedBundle, note: Callable[[str], None]) -> list[np.ndarray]:
    """Read images in child processes: their decoders are third-party code, and the files may be hostile."""
    task = opened.bundle.task
    images: list[np.ndarray] = []
    waiting: list[tuple[str, bytes]] = []
    for number, path in enumerate(paths, start=1):
        try:
            waiting.append((path, read_bounded(Path(path), MAX_BYTES)))
        except DataError as error:
            raise _unreadable(path, str(error).removeprefix(f"{path} ")) from None
        size = sum(len(data) for _, data in waiting)
        if size > _AT_ONCE_BYTES or len(waiting) == _AT_ONCE or number == len(paths):
            images += _fitted(waiting, task, note)
            waiting = []
    return images


def _fitted(files: Sequence[tuple[str, bytes]], task: Task, note: Callable[[str], None]) -> list[np.ndarray]:
    """Return the images of some files, read by one child; if it fails, each file gets a child of its own."""
    shape, sizes = task.input_shape, [len(data) for _, data in files]
    asked = json.dumps({"shape": shape, "resize": task.resize or DEFAULT_RESIZE, "sizes": sizes})
    try:
        found = answer(
            "edgestill.export.bundle.image_child:fitted",
            b"".join(data for _, data in files),
            asked,
            memory_bytes=_MEMORY,
        )
    except ChildError as error:
        if len(files) == 1:
            raise _unreadable(files[0][0], str(error)) from None
        return [image for file in files for image in _fitted([file], task, note)]
    said, _, pixels = found.partition(b"\n")
    for (path, _), told in zip(files, json.loads(said), strict=True):
        if isinstance(told, str):
            raise _unreadable(path, told)
        if told != list(shape[1:]):
            old, new = (f"{width}x{height}" for height, width in (told, shape[1:]))
            note(f"{printable(path)}: resized from {old} to {new}")
    return list(np.frombuffer(pixels, np.float32).reshape(-1, *shape))


def _unreadable(path: str, reason: str) -> DataError:
    return DataError(f"{path}: not an image that is read here ({reason[:200]})")


def _tokens(texts: Sequence[str], opened: OpenedBundle, note: Callable[[str], None]) -> list[np.ndarray]:
    blank = next((text for text in texts if not text.strip()), None)
    if blank is not None:
        raise DataError(f"{blank!r}: there is nothing in this text")
    try:
        ids = Coder(opened.files[TOKENIZER].decode(), TOKENIZER).encode(texts)
    except DataError as error:
        raise BundleError(
            [f"{TOKENIZER} does not code the text: {str(error).removeprefix('the tokenizer ')}"]
        ) from None
    task = opened.bundle.task
    if not task.inputs.is_within(ids):
        raise BundleError([f"{TOKENIZER} gives the id {ids.max()}; the model has ids below {task.vocab_size}"])
    return list(ids)


_READERS = {"image": _images, "text": _tokens}  # by the task's kind of input
