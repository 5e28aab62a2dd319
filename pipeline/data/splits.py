"""A data set's splits, in memory or in files, and batches of their examples."""

# N examples, C channels, H W height and width, T tokens, B batch, R rows of logits

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.look import DataLook
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.task import Task

_MOST_PIXELS = 2**20  # of a batch: memory of a network's feature maps goes with them
UNLABELLED = -100  # the target of an example without a label; torch's cross-entropy leaves it out by default


class Mixed(NamedTuple):
    """The two examples that each input of a batch was mixed from."""

    targets: Tensor  # [2, B] int64, or UNLABELLED
    index: Tensor  # type: ignore[assignment]  # [2, B] int64, positions in the split
    share: Tensor  # [B] float32, of the first

    def blended(self, first: Tensor, second: Tensor) -> Tensor:
        """Mean of two values [B] by the shares."""
        return self.share * first + (1 - self.share) * second

    def first(self, count: int) -> "Mixed":
        return Mixed(self.targets[:, :count], self.index[:, :count], self.share[:count])


class OwnSamples(NamedTuple):
    """Facts about texts that a student continued by itself; they take the place of a batch's own texts."""

    given: Tensor  # [B, T] the data's own text of each prompt: the right answer
    group: Tensor  # [B] number of the prompt within the step; several texts may go on from one
    log_probs: Tensor  # [R] of each row's token under the student that drew it, at temperature 1


class Batch(NamedTuple):
    inputs: Tensor  # [B, C, H, W] float32 in [0, 1], or token ids [B, T] int64
    targets: Tensor  # [B] int64, or UNLABELLED
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index; [B] int64, position in the split
    altered: Tensor | None = None  # [B] bool: inputs that are no longer the split's own; None: no input is
    weight: Tensor | None = None  # [B] of each example in the loss; None: 1 for all
    view: int | None = 0  # augmentation of the split's images: 0 none, above 0 a fixed one; None: drawn afresh
    mixed: Mixed | None = None  # of inputs mixed from two; `targets` are then UNLABELLED, `index` is the first's
    # Of texts with an answer at several places: [R, 2] text and place of each row of logits; targets and index are [R].
    rows: Tensor | None = None
    own: OwnSamples | None = None  # of texts by the student itself; their targets are UNLABELLED, `view` is None

    def first(self, count: int) -> "Batch":
        """Return its first `count` examples."""
        altered, weight = (part if part is None else part[:count] for part in (self.altered, self.weight))
        mixed = None if self.mixed is None else self.mixed.first(count)
        return Batch(self.inputs[:count], self.targets[:count], self.index[:count], altered, weight, self.view, mixed)

    def of_examples(self, values: Tensor) -> Tensor:
        """Value of each example [B] out of the split's [N]; of a mixed one, the mean of both by their shares."""
        return values[self.index] if self.mixed is None else self.mixed.blended(*values[self.mixed.index])


@dataclass(frozen=True)
class ImageSplit:
    """Images as they were stored, in memory or in files, or texts as token ids."""

    images: Tensor | StoredImages  # [N, C, H, W]: uint8, or float32 in [0, 1]; of text [N, T] int64
    targets: Tensor  # [N] int64, or UNLABELLED
    role: str = ""  # train, reference, validation or test, where it is one of a data set's splits
    ids: np.ndarray | None = None  # [N] of str: each example's name in its data set; None: they have none

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def answers(self) -> int:
        """Number of rows of logits that the split asks for: one an example, or several of a text."""
        return len(self)

    def batch(self, index: Tensor, device: torch.device | None = None) -> Batch:
        """Return the chosen images as float32 in [0, 1], channels last in memory, or the chosen token ids."""
        return self.batch_of(self.images[index], index, device)

    def batch_of(self, stored: Tensor, index: Tensor, device: torch.device | None = None) -> Batch:
        """Return the batch of the chosen images as they were stored."""
        inputs = stored.to(device)
        inputs = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs
        return Batch(channels_last(inputs), self.targets[index].to(device), index.to(device))

    def batches(self, size: int, device: torch.device | None = None) -> Iterator[Batch]:
        """Yield the whole split once, in order; batches of large images are smaller than `size`."""
        size = min(size, max(1, _MOST_PIXELS // math.prod(self.images.shape[2:])))
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))), device)

    def passes(self, size: int, device: torch.device | None = None) -> Iterator[Batch]:
        """Yield the whole split once for a network's answers alone, in any order and in as few passes as it can."""
        return self.batches(size, device)

    def labelled(self) -> Self:
        """Keep only the examples with a label."""
        kept = self.targets != UNLABELLED
        return self if bool(kept.all()) else self.select(kept)

    def select(self, index: Tensor) -> Self:
        """Keep the chosen examples, by [B] int64 or a mask [N]; images in files stay there."""
        images = self.images
        chosen = images.select(index) if isinstance(images, StoredImages) else images[index]
        ids = None if self.ids is None else self.ids[index.cpu().numpy()]
        return replace(self, images=chosen, targets=self.targets[index], ids=ids)

    def joined(self, images: Tensor | StoredImages, targets: Tensor, ids: np.ndarray) -> Self:
        """Append examples. Images in files and images in memory do not go together."""
        if isinstance(images, StoredImages):
            assert isinstance(self.images, StoredImages)
            all_images: Tensor | StoredImages = self.images.joined(images)
        else:
            assert isinstance(self.images, Tensor)
            all_images = torch.cat([self.images, images])
        all_ids = None if self.ids is None else np.concatenate([self.ids, ids])
        return replace(self, images=all_images, targets=torch.cat([self.targets, targets]), ids=all_ids)

    def to(self, device: torch.device) -> Self:
        return replace(self, images=self.images.to(device), targets=self.targets.to(device))

    def singly(self) -> "ImageSplit":
        """Return the split as examples with one answer each, as scorers of students look at them."""
        return self


@dataclass(frozen=True)
class Splits:
    task: Task
    train: ImageSplit
    reference: ImageSplit
    validation: ImageSplit
    augment: AugmentConfig
    sizes: dict[str, int]  # examples a split, test included; `train` counts those with labels
    digests: dict[str, str]  # SHA-256 of each split's indices and contents, test included
    coder: Coder | None = None  # of a text task: its tokenizer
    look: DataLook | None = None  # at all splits, where it was asked for
    dropped: int = 0  # examples of the files that are in no split, as configured
    cautions: tuple[str, ...] = ()  # things that the loader understood or left out, a sentence each

    @property
    def parts(self) -> tuple[ImageSplit, ...]:
        return self.train, self.reference, self.validation

    @property
    def pool(self) -> ImageSplit | None:
        """Training examples without a label, as of `data.unlabelled`; None: there are none."""
        nameless = self.train.targets == UNLABELLED
        return self.train.select(nameless) if bool(nameless.any()) else None


def channels_last(inputs: Tensor) -> Tensor:
    """Lay images out channels last in memory, where convolutions are faster on a CPU; leave other inputs as they are.

    A network's activations follow the layout of its inputs, so nothing else is needed (benchmarks/score.py).
    """
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def with_few_labels(split: ImageSplit, per_class: int, seed: int) -> ImageSplit:
    """Keep the labels of `per_class` examples of each class, drawn by seed; the others stay, UNLABELLED."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive_seed(seed, "few labels")))
    drawn = split.targets.cpu()[order]
    classes = sorted(set(drawn[drawn != UNLABELLED].tolist()))
    kept = torch.cat([order[drawn == label][:per_class] for label in classes]).to(split.targets.device)
    targets = torch.full_like(split.targets, UNLABELLED)
    targets[kept] = split.targets[kept]
    return replace(split, targets=targets)


def draw_batch(split: ImageSplit, size: int, seed: int) -> Batch:
    """Draw `size` labelled images by seed, without replacement.

    Raises:
        DataError: there are fewer images than `size`.
    """
    split = split.singly().labelled()
    if size > len(split):
        raise DataError(f"a batch of {size} was asked for, but there are {len(split)} training examples")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive_seed(seed, "batch")))
    return split.batch(order[:size])
