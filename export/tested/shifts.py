"""Simple shifts of inputs, by family and strength."""

# N examples, C channels, H W height and width, T tokens

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Shift(NamedTuple):
    family: str
    strength: str
    apply: Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of inputs [N, …], which it leaves as they are


def shifts_of(task: Task, coder: Coder | None) -> tuple[Shift, ...]:
    """List the shifts of a task's inputs; none for texts without a tokenizer, and for prompts, whose answers change."""
    if task.kind == "image":
        return _OF_IMAGES
    return () if coder is None or task.inputs.continues else tuple(_of_texts(coder))


def shifted(shift: Shift, inputs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the shifted inputs; equal seeds give equal shifts."""
    return shift.apply(inputs, np.random.default_rng(derive_seed(seed, "shift", shift.family, shift.strength)))


def _noise(deviation: float) -> Shift:
    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noisy: np.ndarray = np.clip(images + rng.normal(0, deviation, images.shape), 0, 1).astype(np.float32)
        return noisy

    return Shift("noise", f"standard deviation {deviation:g}", apply)


def _blur(strength: float) -> Shift:
    """Gaussian blur; its standard deviation in pixels is `strength` at 32 pixels, and grows with the side's root."""

    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = strength * (max(images.shape[2:]) / 32) ** 0.5
        reach = max(1, round(3 * sigma))
        places = np.arange(-reach, reach + 1)
        kernel = np.exp(-(places**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).astype(np.float32)
        for axis in (2, 3):
            wide = np.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(4)], mode="edge")
            length = images.shape[axis]
            images = sum(
                (share * np.take(wide, range(k, k + length), axis) for k, share in enumerate(kernel)),
                start=np.zeros_like(images),
            )
        return images

    return Shift("blur", f"{strength:g} pixels at a side of 32", apply)


def _brightness(factor: float) -> Shift:
    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        bright: np.ndarray = np.clip(images * np.float32(factor), 0, 1)
        return bright

    return Shift("brightness", f"times {factor:g}", apply)


def _contrast(factor: float) -> Shift:
    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mean = images.mean((1, 2, 3), keepdims=True, dtype=np.float32)
        flat: np.ndarray = mean + (images - mean) * np.float32(factor)
        return flat

    return Shift("contrast", f"times {factor:g}", apply)


_OF_IMAGES = (
    *map(_noise, (0.05, 0.1, 0.2)),
    *map(_blur, (0.5, 1.0, 2.0)),
    *map(_brightness, (0.7, 0.4, 1.5)),
    *map(_contrast, (0.5, 0.25)),
)


def _of_texts(coder: Coder) -> Iterator[Shift]:
    """Yield typing mistakes and upper case; a text is what its token ids tell of it."""

    def by(change: Callable[[str, np.random.Generator], str]) -> Callable[..., np.ndarray]:
        def apply(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return coder.encode([change(text, rng) for text in coder.decode_all(ids)])

        return apply

    for share in (0.02, 0.05, 0.1):
        yield Shift("typing mistakes", f"{share:.0%} of the letters", by(_mistyped(share)))
    yield Shift("case", "all in capitals", by(lambda text, rng: text.upper()))


def _mistyped(share: float) -> Callable[[str, np.random.Generator], str]:
    """Make a mistake at a share of the letters: another letter, none, or the next one first."""

    def change(text: str, rng: np.random.Generator) -> str:
        letters: list[str] = list(text)
        for place in np.flatnonzero(rng.random(len(letters)) < share).tolist():
            _mistype(letters, place, rng)
        return "".join(letters)

    return change


def _mistype(letters: list[str], place: int, rng: np.random.Generator) -> None:
    kind = int(rng.integers(3))
    if not letters[place].isalpha():
        return
    if kind == 0:
        letters[place] = _LETTERS[int(rng.integers(len(_LETTERS)))]
    elif kind == 1:
        letters[place] = ""
    elif place + 1 < len(letters):
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
