"""Crops and flips: every one of them comes, and views come again."""

import numpy as np
import pytest
import torch

from edgestill.pipeline.data.augmentation import Augmentation, crop, draw_crops
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit


def augment(images, config, generator):
    return crop(images, config, draw_crops(len(images), config, generator))


def crops(image: np.ndarray, pad: int) -> list[np.ndarray]:
    """Every crop of the zero-padded image, by hand."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    return [padded[:, y : y + height, x : x + width] for y in range(2 * pad + 1) for x in range(2 * pad + 1)]


@pytest.mark.parametrize("flip", [False, True])
def test_each_augmented_image_is_one_of_its_own_crops_and_all_of_them_come(flip):
    images = torch.rand(3, 2, 5, 7)
    config = AugmentConfig(pad=2, flip=flip)
    generator = torch.Generator().manual_seed(0)
    possible = []
    for image in images.numpy():
        made = crops(image, 2)
        possible.append(made + [crop[:, :, ::-1] for crop in made] if flip else made)
    met = [set() for _ in images]
    for _ in range(400):
        for i, found in enumerate(augment(images, config, generator).numpy()):
            (match,) = [k for k, crop in enumerate(possible[i]) if np.array_equal(crop, found)]
            met[i].add(match)
    assert all(len(seen) == len(possible[0]) for seen in met)


def test_about_half_of_the_images_are_flipped_each_by_itself():
    images = torch.rand(1000, 1, 2, 3)
    found = augment(images, AugmentConfig(flip=True), torch.Generator().manual_seed(0))
    flipped = (found == images.flip(3)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 430 < int(flipped.sum()) < 570  # 500, standard deviation 16


def test_augmentation_repeats_for_a_generators_seed_and_leaves_its_input():
    images = torch.rand(8, 3, 6, 6)
    before = images.clone()
    config = AugmentConfig(pad=1, flip=True)
    one, other = (augment(images, config, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(images, before)


def test_no_augmentation_is_not_random():
    assert not AugmentConfig().is_random
    assert AugmentConfig(pad=1).is_random
    assert AugmentConfig(flip=True).is_random
    images = torch.rand(2, 1, 3, 3)
    assert torch.equal(augment(images, AugmentConfig(), torch.Generator()), images)


BOTH = AugmentConfig(pad=2, flip=True)


def split(count=40):
    return ImageSplit(torch.rand(count, 2, 6, 6), torch.arange(count) % 3)


def shown(augmentation, images, epoch, order, seed=0):
    """Every image as an epoch shows it, in the split's order, from batches of 7."""
    generator, found = torch.Generator().manual_seed(seed), torch.empty_like(images.images)
    for chosen in order.split(7):
        found[chosen] = augmentation(images.batch(chosen), epoch, generator).inputs
    return found


def test_views_take_turns_whatever_the_order_and_the_generator():
    images = split()
    augmentation = Augmentation(BOTH, views=3, images=len(images), seed=5)
    epochs = [shown(augmentation, images, epoch, torch.randperm(40), seed=epoch) for epoch in range(6)]
    for epoch in range(3):
        assert torch.equal(epochs[epoch], epochs[epoch + 3])
        assert not torch.equal(epochs[epoch], epochs[(epoch + 1) % 3])
        assert not torch.equal(epochs[epoch], images.images)
    again = Augmentation(BOTH, views=3, images=len(images), seed=5)
    other = Augmentation(BOTH, views=3, images=len(images), seed=6)
    assert torch.equal(shown(again, images, 1, torch.arange(40)), epochs[1])
    assert not torch.equal(shown(other, images, 1, torch.arange(40)), epochs[1])


def test_a_view_of_the_split_is_what_the_epochs_show():
    images = split()
    augmentation = Augmentation(BOTH, views=2, images=len(images))
    (batch,) = images.batches(len(images))
    for epoch in range(4):
        given = augmentation(batch, epoch, torch.Generator())
        assert given.view == 1 + epoch % 2
        assert torch.equal(given.inputs, augmentation.view(batch, given.view).inputs)
    assert torch.equal(augmentation.view(batch, 0).inputs, images.images)


def test_without_views_every_epoch_draws_afresh_and_says_so():
    images = split()
    augmentation = Augmentation(BOTH)
    one, other = (shown(augmentation, images, 0, torch.arange(40), seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert augmentation(images.batch(torch.arange(3)), 0, torch.Generator()).view is None


@pytest.mark.parametrize("views", [0, 3])
def test_without_augmentation_the_batch_stays_as_it_is(views):
    batch = split().batch(torch.arange(5))
    assert Augmentation(views=views, images=40)(batch, 1, torch.Generator()) is batch
    assert batch.view == 0


def test_the_first_of_a_batch_are_of_its_view_with_their_own_marks():
    batch = split().batch(torch.arange(5))._replace(view=2, altered=torch.arange(5) > 0, weight=torch.arange(5.0))
    few = batch.first(2)
    assert few.view == 2
    assert few.altered.tolist() == [False, True]
    assert few.weight.tolist() == [0.0, 1.0]
    assert torch.equal(few.inputs, batch.inputs[:2])
    assert torch.equal(few.index, torch.arange(2))
    assert split().batch(torch.arange(5)).first(2).weight is None
