"""Images: float32 pixels in [0, 1], channels first."""

# N images, C channels, H W height and width

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgestill.pipeline.input_kind.base import Damage, InputKind, Shown, TaskFields

if TYPE_CHECKING:
    from torch import Tensor

_FAR = 0.5  # largest distance between a channel's means, in standard deviations


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


@dataclass(frozen=True)
class Images(InputKind):
    """Images [C, H, W]; networks normalise them inside."""

    mean: tuple[float, ...] = ()  # of the training pixels, a value a channel; () where they are not known
    std: tuple[float, ...] = ()

    name: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"
    classifier: ClassVar[str] = "An image classifier"
    values: ClassVar[str] = "pixels"
    limits: ClassVar[str] = "[0, 1]"
    dtype: ClassVar[str] = "float32"
    ports: ClassVar[tuple[str, ...]] = ("images",)
    interfaces: ClassVar[tuple[str, ...]] = ("raw", "image")
    script: ClassVar[str] = "run_images.py"
    damages: ClassVar[Mapping[str, Damage]] = {
        "Gaussian noise, standard deviation 0.05": _noise,
        "blur, 1-2-1 along both sides": _blur,
        "shift by a sixteenth of the side": _shift,
        "contrast halved": _flatten,
    }

    @classmethod
    def of(cls, task: TaskFields) -> Self:
        if len(task.input_shape) != 3 or task.vocab_size is not None or task.tokenizer_sha256 is not None:
            raise ValueError(
                "an image task has an input_shape of (channels, height, width), no vocab_size, no tokenizer"
            )
        if not len(task.mean) == len(task.std) == task.input_shape[0]:
            raise ValueError(f"{task.input_shape[0]} channels need as many means and stds")
        return cls(task.input_shape, task.mean, task.std)

    def described(self) -> str:
        return f"{'×'.join(map(str, self.shape))} images"

    def description(self) -> dict[str, Any]:
        return {"name": self.ports[0], "dtype": self.dtype, "shape": ["batch", *self.shape], "range": [0, 1]}

    def shown(self, example: "Tensor", decode: Callable[[Sequence[int]], str] | None = None) -> Shown:
        import torch

        pixels = example.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
        return Shown(pixels=tuple(pixels.flatten().tolist()), shape=tuple(pixels.shape))

    def probes(self, count: int, seed: int = 0) -> np.ndarray:
        """Noise of varied coarseness and contrast, in steps of 1/255."""
        rng = np.random.default_rng(seed)
        channels, height, width = self.shape
        images = []
        for index in range(count):
            step = 2 ** (index % 4)
            coarse = rng.random((channels, -(-height // step), -(-width // step)))
            image = coarse.repeat(step, axis=1).repeat(step, axis=2)[:, :height, :width]
            images.append(rng.random() + (image - rng.random()) * rng.uniform(0.2, 1.5))
        return (np.round(np.clip(np.stack(images), 0, 1) * 255) / np.float32(255)).astype(np.float32)

    def extremes(self) -> Iterator[tuple[str, "Tensor"]]:
        import torch

        yield "zeros", torch.zeros(1, *self.shape)
        yield "ones", torch.ones(1, *self.shape)
        stripes = torch.zeros(1, *self.shape)
        stripes[..., ::2] = 1
        yield "stripes", stripes
        yield "noise", torch.rand(7, *self.shape, generator=torch.Generator().manual_seed(0))

    def is_within(self, inputs: np.ndarray) -> bool:
        return bool(((inputs >= 0) & (inputs <= 1)).all())

    def fault(self, examples: np.ndarray, of: str) -> str | None:
        if examples.dtype != self.dtype:
            return f"{of} examples are {examples.dtype}; the file takes {self.dtype}"
        bad = int((~np.isfinite(examples)).reshape(len(examples), -1).any(axis=1).sum())
        if bad:
            return f"{bad} of {len(examples)} {of} examples hold NaN or infinity"
        low, high = float(examples.min()), float(examples.max())
        if low < 0 or high > 1:
            return f"{of} pixels run from {low:.3g} to {high:.3g}; the file takes [0, 1] and normalises itself"
        means = examples.mean(axis=(0, 2, 3))
        for channel, (found, mean, std) in enumerate(zip(means, self.mean, self.std, strict=True)):
            if abs(float(found) - mean) > _FAR * std:
                return (
                    f"{of} examples are not like the training data: channel {channel} has mean {found:.3f}, and "
                    f"{mean:.3f} in training (standard deviation {std:.3f})"
                )
        return None
