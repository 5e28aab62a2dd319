"""Random augmentation of training images: drawn afresh for every batch, or a few views of each image that recur.

With `views`, each image has that many, which take turns epoch by epoch; the teacher needs to see each only once.
Student and teacher see the same images, "consistent" teaching of Beyer et al. 2022, arXiv:2106.05237.
"""

# B batch, N images of the split, C channels, H W height and width

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.image_steps import STEPS
from edgestill.pipeline.data.mixing import mixed
from edgestill.pipeline.data.pixel_operations import require_kornia
from edgestill.pipeline.data.splits import Batch, channels_last
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed

_NONE = AugmentConfig()
VIEWS_MIX = (
    "distill.training.views shows fixed views of each image, and data.augment.mixup and cutmix mix each with another "
    "of its batch, which differs by epoch; leave one of them out"
)


class Crops(NamedTuple):
    corners: Tensor  # [2, N] int64, row and column in the padded image
    flipped: Tensor  # [N] bool

    def of(self, index: Tensor) -> "Crops":
        return Crops(self.corners[:, index], self.flipped[index])


class Drawn(NamedTuple):
    """All that is random in the augmentation of some images."""

    crops: Crops
    numbers: Mapping[str, Tensor]  # of each step, [count, N] uniform in [0, 1)

    def of(self, index: Tensor) -> "Drawn":
        return Drawn(self.crops.of(index), {name: numbers[:, index] for name, numbers in self.numbers.items()})


class Augmentation:
    """Augmentation of an epoch's images.

    Args:
        views: number of views of each image that take turns; 0 draws them afresh for every batch.
        images: N, the size of the split that the batches come from. Only read with views.
        seed: of the views.

    Raises:
        ConfigError: views of images that are mixed with others.
        MissingDependencyError: an operation needs kornia, which is not installed.
    """

    def __init__(self, config: AugmentConfig = _NONE, *, views: int = 0, images: int = 0, seed: int = 0) -> None:
        if views and config.mixes:
            raise ConfigError([VIEWS_MIX])
        if config.needs_kornia:
            require_kornia()
        self._config = config
        self._views, self._images, self._seed = views, images, seed
        self._drawn: dict[int, Drawn] = {}

    def __call__(self, batch: Batch, epoch: int, generator: torch.Generator) -> Batch:
        """Return the batch as an epoch shows it; epochs count from 0."""
        if not self._config.is_random:
            return batch
        if self._views:
            return self.view(batch, 1 + epoch % self._views)
        drawn = draw(len(batch.targets), self._config, generator)
        batch = batch._replace(inputs=augmented(batch.inputs, self._config, drawn), view=None)
        return mixed(batch, self._config, generator) if self._config.mixes else batch

    def view(self, batch: Batch, number: int) -> Batch:
        """Return a batch of the split's own images in a numbered view; 0 leaves them as they are."""
        if number == 0:
            return batch
        if number not in self._drawn:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "view", number))
            self._drawn[number] = draw(self._images, self._config, generator)
        chosen = self._drawn[number].of(batch.index.cpu())
        return batch._replace(inputs=augmented(batch.inputs, self._config, chosen), view=number)

    def identity(self, number: int) -> tuple[Any, ...]:
        """All that decides a view of given images."""
        return (self._config, self._seed, number) if number else (number,)


def draw(count: int, config: AugmentConfig, generator: torch.Generator) -> Drawn:
    """Draw what the augmentation of `count` images needs."""
    crops = draw_crops(count, config, generator)
    needed = {name: step.numbers(config) for name, step in STEPS.items()}
    return Drawn(crops, {name: torch.rand(n, count, generator=generator) for name, n in needed.items() if n})


def augmented(images: Tensor, config: AugmentConfig, drawn: Drawn) -> Tensor:
    """Augment each image as it was drawn. [B, C, H, W] to the same."""
    images = crop(images, config, drawn.crops)
    if not drawn.numbers:
        return images
    for name, numbers in drawn.numbers.items():
        images = STEPS[name].apply(images, config, numbers.to(images.device))
    return channels_last(images)


def draw_crops(count: int, config: AugmentConfig, generator: torch.Generator) -> Crops:
    """Draw the crop corner of each of `count` images, and its flip."""
    corners, flipped = torch.zeros(2, count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    if config.pad:
        corners = torch.randint(0, 2 * config.pad + 1, (2, count), generator=generator)
    if config.flip:
        flipped = torch.rand(count, generator=generator) < 0.5
    return Crops(corners, flipped)


def crop(images: Tensor, config: AugmentConfig, crops: Crops) -> Tensor:
    """Crop each image after zero padding, and flip it where `crops` says so. [B, C, H, W] to the same."""
    count, _, height, width = images.shape
    if config.pad:
        padded = torch.nn.functional.pad(images, (config.pad,) * 4)
        corners = crops.corners.to(images.device)[:, :, None]
        rows = corners[0] + torch.arange(height, device=images.device)
        columns = corners[1] + torch.arange(width, device=images.device)
        of_image = torch.arange(count, device=images.device)[:, None, None]
        images = padded[of_image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if config.flip:
        images = torch.where(crops.flipped.to(images.device)[:, None, None, None], images.flip(3), images)
    return images
