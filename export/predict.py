"""Labels and probabilities from a bundle, by the same reading of images and texts as its run.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.bundle import TOKENIZER
from export.probes import open_model, run_checked
from export.quality import softmax
from export.reading import OpenedBundle
from pipeline.errors import BundleError, DataError, first_line
from pipeline.task import Task
from pipeline.tokens import Coder


class Answer(NamedTuple):
    input: str  # as it was given
    label: str
    probability: float
    probabilities: tuple[float, ...]  # of each class, in the order of the labels


def predict(opened: OpenedBundle, given: Sequence[str], model: str | None = None) -> list[Answer]:
    """The answers to image files, or to texts.

    Args:
        model: by its format's name; None: the bundle's default.

    Raises:
        BundleError: there is no such model; the tokenizer gives ids that the model does not have.
        ExportError: its runtime refuses the file, or is not here; its answer is not a finite logit a class.
        DataError: an image that cannot be read, or a text with nothing in it.
    """
    task = opened.bundle.task
    chosen = opened.model(model)
    run = open_model(opened.folder, chosen, opened.trusted)
    inputs = _images(given, task.input_shape) if task.kind == "image" else _tokens(given, opened.files[TOKENIZER], task)
    answers = []
    for name, single in zip(given, inputs, strict=True):
        shares = softmax(run_checked(run, chosen, single[None], task.num_classes).astype(np.float64))[0]
        best = int(shares.argmax())
        answers.append(Answer(name, task.labels[best], float(shares[best]), tuple(map(float, shares))))
    return answers


def _images(paths: Sequence[str], shape: tuple[int, ...]) -> list[np.ndarray]:
    from export._run import UNREADABLE, fit_to, read_image

    channels, height, width = shape
    images = []
    for path in paths:
        try:
            images.append(fit_to(read_image(Path(path)), channels, height, width, path))
        except UNREADABLE as error:
            raise DataError(f"{path}: not an image that is read here ({error})") from None
    return images


def _tokens(texts: Sequence[str], tokenizer: bytes, task: Task) -> list[np.ndarray]:
    blank = next((text for text in texts if not text.strip()), None)
    if blank is not None:
        raise DataError(f"{blank!r}: there is nothing in this text")
    try:
        ids = Coder(tokenizer.decode()).encode(texts)
    except Exception as error:  # the library's own kinds
        raise BundleError([f"{TOKENIZER} does not code the text: {first_line(error, type(error).__name__)}"]) from None
    if ids.max() >= (task.vocab_size or 0):
        raise BundleError([f"{TOKENIZER} gives the id {ids.max()}; the model has ids below {task.vocab_size}"])
    return list(ids)
