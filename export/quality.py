"""Quality of a model's answers beyond accuracy: by class, calibration of its confidence, under perturbations."""

# N examples, K classes, C channels, H W height and width, T tokens

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from edgestill.export.run import Run
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import PADDING, Task

ECE_BINS = 15  # of equal width; the number of Guo et al. 2017, arXiv:1706.04599
_BATCH = 256


class ClassScore(NamedTuple):
    n: int
    precision: float | None
    recall: float | None


def logits_of(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Compute the logits [N, K] of all inputs, in batches."""
    parts = [run(np.ascontiguousarray(inputs[start : start + _BATCH])) for start in range(0, len(inputs), _BATCH)]
    return np.concatenate(parts)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float((logits.argmax(1) == targets).mean())


def by_class(logits: np.ndarray, targets: np.ndarray) -> list[ClassScore]:
    """Precision and recall of each class."""
    answers, scores = logits.argmax(1), []
    for k in range(logits.shape[1]):
        hits = int(((answers == k) & (targets == k)).sum())
        given, there = int((answers == k).sum()), int((targets == k).sum())
        scores.append(ClassScore(there, hits / given if given else None, hits / there if there else None))
    return scores


def calibration(logits: np.ndarray, targets: np.ndarray, bins: int = ECE_BINS) -> tuple[float, float]:
    """Return the expected calibration error and the mean confidence of the softmax.

    ECE = sum over bins of (share of examples in the bin) * |accuracy - mean confidence|, in bins of equal width over
    confidences (0, 1] (Naeini et al. 2015; Guo et al. 2017, equation 3).
    """
    probabilities = softmax(logits)
    confidence, hit = probabilities.max(1), logits.argmax(1) == targets
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = (abs(float((hit[bin_of == b] - confidence[bin_of == b]).sum())) for b in range(bins))
    return sum(gaps) / len(targets), float(confidence.mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def perturbed(inputs: np.ndarray, task: Task, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs under each perturbation of their kind, with its name; equal seeds give equal damage."""
    table = _IMAGES if task.kind == "image" else _TEXTS
    for name, damage in table.items():
        yield name, damage(inputs, np.random.default_rng(derive_seed(seed, "robustness", name)))


Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noisy = images + rng.normal(0, 0.05, images.shape).astype(np.float32)
    clipped: np.ndarray = np.clip(noisy, 0, 1)
    return clipped


def _blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by 1-2-1 along both sides; edge pixels are repeated outwards."""
    for axis in (2, 3):
        wide = np.pad(images, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, after = (np.take(wide, range(s, s + images.shape[axis]), axis) for s in (0, 2))
        images = (before + 2 * images + after) / 4
    return images


def _shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift by a sixteenth of height and width, in a diagonal direction drawn per image; edge pixels are repeated."""
    _, _, height, width = images.shape
    by = [max(1, round(side / 16)) for side in (height, width)]
    wide = np.pad(images, [(0, 0), (0, 0), (by[0], by[0]), (by[1], by[1])], mode="edge")
    moved = np.empty_like(images)
    for index, (y, x) in enumerate(rng.integers(0, 2, (len(images), 2)) * 2 * np.array(by)):
        moved[index] = wide[index, :, y : y + height, x : x + width]
    return moved


def _flatten(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mean = images.mean((1, 2, 3), keepdims=True, dtype=np.float32)
    flat: np.ndarray = mean + (images - mean) / 2
    return flat


def _drop(share: float) -> Damage:
    def damage(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        dropped = np.full_like(ids, PADDING)
        for row, (text, draws) in enumerate(zip(ids, rng.random(ids.shape), strict=True)):
            keep = (text != PADDING) & (draws >= share)
            keep[0] = True  # a text keeps its first token, which some networks read their answer from
            dropped[row, : keep.sum()] = text[keep]
        return dropped

    return damage


def _swap(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap neighbouring tokens with probability 0.2 a pair, from the second token on."""
    swapped = ids.copy()
    for row, draws in zip(swapped, rng.random(ids.shape), strict=True):
        for t in range(1, int((row != PADDING).sum()) - 1, 2):
            if draws[t] < 0.2:
                row[t], row[t + 1] = row[t + 1], row[t]
    return swapped


_IMAGES: dict[str, Damage] = {
    "Gaussian noise, standard deviation 0.05": _noise,
    "blur, 1-2-1 along both sides": _blur,
    "shift by a sixteenth of the side": _shift,
    "contrast halved": _flatten,
}
_TEXTS: dict[str, Damage] = {
    "a tenth of the tokens dropped": _drop(0.1),
    "three tenths of the tokens dropped": _drop(0.3),
    "a fifth of neighbouring pairs swapped": _swap,
}
