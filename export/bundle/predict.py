"""Predicts labels and probabilities with a bundle; reads images and texts as its run.py does."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgestill.export.bundle.foreign_run import open_foreign
from edgestill.export.bundle.image_child import MAX_BYTES
from edgestill.export.bundle.probes import run_checked
from edgestill.export.bundle.read import OpenedBundle
from edgestill.export.bundle.schema import TOKENIZER
from edgestill.pipeline.child import ChildError, answer
from edgestill.pipeline.data.pixels import DEFAULT_RESIZE
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.errors import BundleError, DataError, printable
from edgestill.pipeline.foreign import read_bounded
from edgestill.pipeline.input_kind.lm import MARKS, START
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.calibration import softmax

_MEMORY = 2**31  # some copies of the largest image allowed
_IN_MEMORY = 256  # inputs that are answered together
_AT_ONCE, _AT_ONCE_BYTES = 64, 2**24  # images per child, and bytes of their files


class Answer(NamedTuple):
    input: str  # as it was given
    label: str
    probability: float
    probabilities: tuple[float, ...]  # of each class, in the order of the labels


class Failure(NamedTuple):
    input: str  # as it was given
    message: str  # names the input


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
    answers = []
    for found in predict_each(opened, given, model, note):
        if isinstance(found, Failure):
            raise DataError(found.message)
        answers.append(found)
    return answers


def predict_each(
    opened: OpenedBundle,
    given: Sequence[str],
    model: str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Answer | Failure]:
    """Yield the answer to each input in order, or why it could not be read; otherwise as `predict`."""
    chosen = opened.model(model)
    run = open_foreign(opened, chosen, singly=True)
    for start in range(0, len(given), _IN_MEMORY):
        part = given[start : start + _IN_MEMORY]
        inputs = _READERS[opened.bundle.task.kind](part, opened, note)
        readable = [found for found in inputs if isinstance(found, np.ndarray)]
        answers = _answers(opened, run, chosen, readable)
        for name, found in zip(part, inputs, strict=True):
            yield found if isinstance(found, Failure) else next(answers)._replace(input=name)


def _answers(opened: OpenedBundle, run: Any, model: Any, inputs: Sequence[np.ndarray]) -> Iterator[Answer]:
    task = opened.bundle.task
    if not inputs:
        return
    logits = run_checked(run, model, np.stack(inputs), task.num_classes)
    for shares in softmax(logits.astype(np.float64)):
        best = int(shares.argmax())
        yield Answer("", task.labels[best], float(shares[best]), tuple(map(float, shares)))


def _images(paths: Sequence[str], opened: OpenedBundle, note: Callable[[str], None]) -> list[np.ndarray | Failure]:
    """Read images in child processes: their decoders are third-party code, and the files may be hostile."""
    task = opened.bundle.task
    images: list[np.ndarray | Failure] = []
    waiting: list[tuple[str, bytes]] = []
    for path in paths:
        try:
            waiting.append((path, read_bounded(Path(path), MAX_BYTES)))
        except DataError as error:
            images += _fitted(waiting, task, note)
            waiting = []
            images.append(_unreadable(path, str(error).removeprefix(f"{path} ")))
        size = sum(len(data) for _, data in waiting)
        if size > _AT_ONCE_BYTES or len(waiting) == _AT_ONCE:
            images += _fitted(waiting, task, note)
            waiting = []
    return images + _fitted(waiting, task, note)


def _fitted(files: Sequence[tuple[str, bytes]], task: Task, note: Callable[[str], None]) -> list[np.ndarray | Failure]:
    """Return the images of some files, read by one child; if it fails, each file gets a child of its own."""
    if not files:
        return []
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
            return [_unreadable(files[0][0], str(error))]
        return [image for file in files for image in _fitted([file], task, note)]
    said, _, pixels = found.partition(b"\n")
    readable = iter(np.frombuffer(pixels, np.float32).reshape(-1, *shape))
    images: list[np.ndarray | Failure] = []
    for (path, _), told in zip(files, json.loads(said), strict=True):
        images.append(_unreadable(path, told) if isinstance(told, str) else next(readable))
        if not isinstance(told, str) and told != list(shape[1:]):
            old, new = (f"{width}x{height}" for height, width in (told, shape[1:]))
            note(f"{printable(path)}: resized from {old} to {new}")
    return images


def _unreadable(path: str, reason: str) -> Failure:
    return Failure(path, f"{path}: not an image that is read here ({reason[:200]})")


def _tokens(texts: Sequence[str], opened: OpenedBundle, note: Callable[[str], None]) -> list[np.ndarray | Failure]:
    readable = [text for text in texts if text.strip()]
    ids = iter(_ids(readable, opened) if readable else [])
    return [next(ids) if text.strip() else Failure(text, f"{text!r}: there is nothing in this text") for text in texts]


def _ids(texts: Sequence[str], opened: OpenedBundle) -> list[np.ndarray]:
    try:
        ids = Coder(opened.files[TOKENIZER].decode(), TOKENIZER).encode(texts)
    except DataError as error:
        raise BundleError(
            [f"{TOKENIZER} cannot turn the text into token ids: {str(error).removeprefix('the tokenizer ')}"]
        ) from None
    task = opened.bundle.task
    if not task.inputs.is_within(ids):
        raise BundleError([f"{TOKENIZER} gives the id {ids.max()}; the model has ids below {task.vocab_size}"])
    return list(ids)


def _prompts(texts: Sequence[str], opened: OpenedBundle, note: Callable[[str], None]) -> list[np.ndarray | Failure]:
    """Read prompts, whose answer begins after START: a label is then the first token of it."""
    note("a language model labels a prompt with its next token; run.py in the bundle continues it")
    return _tokens([f"{text}{MARKS[START]}" for text in texts], opened, note)


_READERS = {"image": _images, "text": _tokens, "lm": _prompts}  # by the task's kind of input
