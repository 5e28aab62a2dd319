"""Labels and probabilities from a bundle, by the same reading of images and texts as its run.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.bundle import TOKENIZER
from export.probes import open_model
from export.quality import softmax
from export.reading import OpenedBundle
from pipeline.errors import DataError
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
        BundleError: there is no such model.
        ExportError: its runtime refuses the file, or is not here.
        DataError: an image that cannot be read, or a text with nothing in it.
    """
    task = opened.bundle.task
    run = open_model(opened.folder, opened.model(model), opened.trusted)
    inputs = _images(given, task.input_shape) if task.kind == "image" else _tokens(given, opened.files[TOKENIZER])
    answers = []
    for name, single in zip(given, inputs, strict=True):
        shares = softmax(np.asarray(run(single[None]), np.float64))[0]
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


def _tokens(texts: Sequence[str], tokenizer: bytes) -> list[np.ndarray]:
    coder = Coder(tokenizer.decode())
    blank = next((text for text in texts if not text.strip()), None)
    if blank is not None:
        raise DataError(f"{blank!r}: there is nothing in this text")
    return list(coder.encode(texts))
