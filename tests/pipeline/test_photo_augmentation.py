"""Augmentation of photographs: each operation against torchvision's own, or its closed form."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.data import policies
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.image_steps import STEPS, cropped, draw_boxes, erase, jitter
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError, MissingDependencyError
from edgestill.pipeline.torchvision_compat import repair
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

repair()
import torchvision.transforms.v2.functional as tv  # noqa: E402

ALL = AugmentConfig(
    pad=1,
    flip=True,
    crop=(0.3, 1.0),
    policy="trivialaugment",
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    erase=0.5,
)


def photos(count=6, channels=3, height=12, width=16, seed=0):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def split(count=40, channels=3):
    return ImageSplit(photos(count, channels), torch.arange(count) % 3)


# Crops


def test_a_crop_is_torchvisions():
    images = photos(4)
    boxes = [(0, 0, 12, 16), (3, 5, 6, 7), (2, 9, 10, 1), (11, 0, 1, 16)]
    found = cropped(images, *torch.tensor(boxes).float().T)
    for image, one, box in zip(images, found, boxes, strict=True):
        expected = tv.resized_crop(image, *box, size=[12, 16], antialias=False)
        torch.testing.assert_close(one, expected, atol=2e-6, rtol=0)


def test_crops_are_whole_pixels_inside_of_the_asked_share_and_ratio():
    config = AugmentConfig(crop=(0.2, 0.7))
    numbers = torch.rand(22, 2000, generator=torch.Generator().manual_seed(0))
    top, left, height, width = draw_boxes(torch.Size((60, 80)), config, numbers)
    assert all(torch.equal(edge, edge.round()) for edge in (top, left, height, width))
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 60
    assert (left + width).max() <= 80
    share, ratio = height * width / 4800, width / height
    assert 0.18 < share.min() < 0.22
    assert 0.66 < share.max() < 0.72
    assert share.mean() == pytest.approx(0.44, abs=0.02)  # the few large ones that do not fit are drawn again
    assert ratio.log().mean() == pytest.approx(0, abs=0.02)
    assert 0.7 < ratio.min() < 0.78


def test_a_crop_that_never_fits_is_the_middle_as_in_torchvision():
    config = AugmentConfig(crop=(1.0, 1.0), ratio=(1.0, 1.0))
    numbers = torch.rand(22, 3)
    found = [edge.tolist() for edge in draw_boxes(torch.Size((10, 40)), config, numbers)]
    assert found == [[0] * 3, [15] * 3, [10] * 3, [10] * 3]


# Colours, and the operations of the policies


def test_jitter_is_torchvisions():
    images, numbers = photos(5), torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    config = AugmentConfig(brightness=0.4, contrast=0.5, saturation=0.6, hue=0.2)
    for image, found, drawn in zip(images, jitter(images, config, numbers), numbers.T.tolist(), strict=True):
        brightness, contrast, saturation, hue = (2 * u - 1 for u in drawn)
        expected = tv.adjust_brightness(image, 1 + 0.4 * brightness)
        expected = tv.adjust_contrast(expected, 1 + 0.5 * contrast)
        expected = tv.adjust_saturation(expected, 1 + 0.6 * saturation)
        torch.testing.assert_close(found, tv.adjust_hue(expected, 0.2 * hue), atol=5e-4, rtol=0)


def bilinear(image, angle=0.0, translate=(0, 0), shear=(0.0, 0.0)):
    return tv.affine(image, angle, list(translate), 1.0, list(shear), interpolation=tv.InterpolationMode.BILINEAR)


def degrees(slope):
    return math.degrees(math.atan(slope))


def as_bytes(image):
    return (image * 255).round().to(torch.uint8)


REFERENCES = {  # (image, signed strength in [-1, 1]), at the wide ranges
    "identity": lambda image, s: image,
    "shear_x": lambda image, s: bilinear(image, shear=(degrees(0.99 * s), 0.0)),
    "translate_x": lambda image, s: bilinear(image, translate=(-32 * s, 0)),
    "translate_y": lambda image, s: bilinear(image, translate=(0, -32 * s)),
    "rotate": lambda image, s: bilinear(image, angle=-135 * s),
    "brightness": lambda image, s: tv.adjust_brightness(image, 1 + 0.99 * s),
    "saturation": lambda image, s: tv.adjust_saturation(image, 1 + 0.99 * s),
    "contrast": lambda image, s: tv.adjust_contrast(image, 1 + 0.99 * s),
    "sharpness": lambda image, s: tv.adjust_sharpness(image, 1 + 0.99 * s),
    "posterize": lambda image, s: tv.posterize(as_bytes(image), 8 - round(6 * abs(s))).float() / 255,
    "solarize": lambda image, s: tv.solarize(image, 1 - abs(s)),
    "autocontrast": lambda image, s: tv.autocontrast(image),
    "equalize": lambda image, s: tv.equalize(as_bytes(image)).float() / 255,
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("way", [-1, 1])
def test_an_operation_is_torchvisions(name, way):
    side = 224 if "translate" in name else 20
    image = as_bytes(photos(1, height=side, width=side)).float() / 255
    half, which = 15, list(policies.OPERATIONS).index(name)  # of 30 bins: 16 whole pixels, as torchvision shifts
    numbers = torch.tensor([[(which + 0.5) / 14], [(half + 0.5) / 31], [0.25 if way < 0 else 0.75]])
    found = policies.apply_policy(image, "trivialaugment", numbers)[0]
    expected = REFERENCES[name](image[0], way / 2)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_shears_along_and_across_are_each_others_mirror():
    image = photos(1, height=16, width=16)
    numbers = [torch.tensor([[(k + 0.5) / 14], [0.9], [0.9]]) for k in (1, 2)]
    across, along = (policies.apply_policy(image, "trivialaugment", n) for n in numbers)
    torch.testing.assert_close(along, policies.apply_policy(image.mT, "trivialaugment", numbers[0]).mT)
    assert not torch.equal(across, along)


def test_every_operation_comes_equally_often_and_randaugment_does_two_at_three_tenths(monkeypatch):
    seen = []

    def watch(images, strength, sign, ranges):
        seen.append((len(images), sorted(set(strength.tolist())), sorted(set(sign.tolist()))))
        return images

    monkeypatch.setattr(policies, "OPERATIONS", dict.fromkeys(policies.OPERATIONS, watch))
    images = torch.zeros(14_000, 1, 1, 1)
    for policy, rounds in (("trivialaugment", 1), ("randaugment", 2)):
        seen.clear()
        count = policies.numbers_of(policy)
        policies.apply_policy(images, policy, torch.rand(count, 14_000, generator=torch.Generator().manual_seed(0)))
        assert len(seen) == 14 * rounds
        assert all(870 < many < 1130 for many, _, _ in seen)  # 1000, standard deviation 30
        assert all(signs == [-1.0, 1.0] for _, _, signs in seen)
        strengths = {round(30 * s) for _, found, _ in seen for s in found}
        assert strengths == (set(range(31)) if rounds == 1 else {9})


def test_an_erased_rectangle_is_the_images_mean_and_the_rest_stays():
    images = photos(200, height=20, width=20)
    numbers = torch.rand(5, 200, generator=torch.Generator().manual_seed(3))
    found = erase(images, AugmentConfig(erase=0.4), numbers)
    for n, (image, one) in enumerate(zip(images, found, strict=True)):
        changed = (image != one).any(0)
        assert bool(changed.any()) == (numbers[0, n] < 0.4)
        rows, columns = torch.nonzero(changed.any(1)).flatten(), torch.nonzero(changed.any(0)).flatten()
        assert changed.sum() == len(rows) * len(columns)
        assert changed.sum() <= 400 / 3 + 20
        mean = image.mean((1, 2))[:, None].expand(3, int(changed.sum()))
        torch.testing.assert_close(one[:, changed], mean)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_stay_in_range_and_grey_stays_grey(channels):
    batch = split(64, channels).batch(torch.arange(64))
    for policy in ("trivialaugment", "randaugment"):
        config = ALL.model_copy(update={"policy": policy})
        found = Augmentation(config)(batch, 0, torch.Generator().manual_seed(0)).inputs
        assert found.shape == batch.inputs.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert found.is_contiguous(memory_format=torch.channels_last)


# Views, and the same bits


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_generator_gives_the_same_bits_whatever_torchs_own_and_its_threads(threads):
    batch, config = split().batch(torch.arange(40)), ALL.model_copy(update={"mixup": 1.0, "cutmix": 1.0})
    before = torch.get_num_threads()
    expected = Augmentation(config)(batch, 0, torch.Generator().manual_seed(5))
    try:
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        found = Augmentation(config)(batch, 0, torch.Generator().manual_seed(5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.mixed.share, expected.mixed.share)
    other = Augmentation(config)(batch, 0, torch.Generator().manual_seed(6))
    assert not torch.equal(other.inputs, expected.inputs)


def test_a_view_is_the_same_in_any_batch():
    images = split()
    augmentation = Augmentation(ALL, views=2, images=40, seed=1)
    (whole,) = images.batches(40)
    expected = augmentation.view(whole, 1).inputs
    for chosen in torch.randperm(40).split(7):
        found = augmentation(images.batch(chosen), 2, torch.Generator())
        assert found.view == 1
        torch.testing.assert_close(found.inputs, expected[chosen], atol=1e-6, rtol=0)
    assert not torch.equal(augmentation.view(whole, 2).inputs, expected)


def test_crops_and_flips_alone_draw_as_before_the_other_steps():
    """Draws of the other steps come after theirs, so that an old configuration shows what it always showed."""
    batch = split().batch(torch.arange(40))
    old = AugmentConfig(pad=2, flip=True)
    generator = torch.Generator().manual_seed(3)
    Augmentation(old)(batch, 0, generator)
    by_hand = torch.Generator().manual_seed(3)
    torch.randint(0, 5, (2, 40), generator=by_hand)
    torch.rand(40, generator=by_hand)
    assert torch.equal(generator.get_state(), by_hand.get_state())


def test_views_of_mixed_images_are_refused():
    with pytest.raises(ConfigError, match=r"mixup and cutmix mix each with another of its batch"):
        Augmentation(AugmentConfig(mixup=0.2), views=2, images=40)


@pytest.mark.parametrize("given", [{"crop": [0.5, 0.2]}, {"crop": [0, 1]}, {"ratio": [2, 1]}, {"hue": 0.6}])
def test_ranges_in_the_wrong_order_are_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        AugmentConfig(**given)


def test_every_setting_makes_it_random_and_each_step_knows_whether_it_is_on():
    settings = {"crop": (0.5, 1), "policy": "randaugment", "brightness": 0.1, "contrast": 0.1, "saturation": 0.1}
    settings |= {"hue": 0.1, "erase": 0.1, "mixup": 0.1, "cutmix": 0.1}
    for name, value in settings.items():
        assert AugmentConfig(**{name: value}).is_random, name
        on = [step for step, of in STEPS.items() if of.numbers(AugmentConfig(**{name: value}))]
        assert on == ([] if name in ("mixup", "cutmix") else [name if name in STEPS else "jitter"])
    assert not AugmentConfig(ratio=(1, 1)).is_random


def test_without_kornia_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kornia.enhance", None)
    Augmentation(AugmentConfig(crop=(0.3, 1), flip=True, erase=0.1, mixup=1.0, brightness=0.2))
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgestill\[kornia\]'"):
        Augmentation(AugmentConfig(policy="randaugment"))


# Mixing


def mixed_batch(config, count=64):
    batch = split(count).batch(torch.arange(count))
    return batch, Augmentation(config)(batch, 0, torch.Generator().manual_seed(0))


def test_mixup_is_the_weighted_mean_of_two_images_and_of_their_losses():
    batch, found = mixed_batch(AugmentConfig(mixup=1.0))
    own, other = found.mixed.index
    assert torch.equal(own, batch.index)
    share = found.mixed.share[:, None, None, None]
    torch.testing.assert_close(found.inputs, share * batch.inputs + (1 - share) * batch.inputs[other])
    assert torch.equal(found.mixed.targets, torch.stack([batch.targets, batch.targets[other]]))
    assert found.view is None
    assert (found.targets == UNLABELLED).all()
    logits = torch.randn(64, 3, dtype=torch.float64)
    network = lambda inputs: logits  # noqa: E731
    soft = share[:, 0, 0].double() * F.one_hot(batch.targets, 3)
    soft += (1 - share[:, 0, 0].double()) * F.one_hot(batch.targets[other], 3)
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert Supervised().loss(network, found)["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_shares_of_mixup_are_of_the_beta_distribution():
    _, found = mixed_batch(AugmentConfig(mixup=0.4), 4000)
    share = found.mixed.share
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)


def test_cutmix_puts_a_rectangle_of_the_other_image_and_counts_its_pixels():
    batch, found = mixed_batch(AugmentConfig(cutmix=1.0))
    other = batch.inputs[found.mixed.index[1]]
    for own, theirs, one, share in zip(batch.inputs, other, found.inputs, found.mixed.share.tolist(), strict=True):
        kept, taken = (one == own).all(0), (one == theirs).all(0)
        assert (kept | taken).all()
        if torch.equal(own, theirs):
            continue
        assert kept.float().mean().item() == pytest.approx(share, abs=1e-6)
        rows, columns = taken.any(1), taken.any(0)
        assert taken.sum() == rows.sum() * columns.sum()
    assert 0 <= found.mixed.share.min() < 0.4
    assert found.mixed.share.max() > 0.8


def test_with_both_half_of_the_images_are_cut():
    batch, found = mixed_batch(AugmentConfig(mixup=1.0, cutmix=1.0), 1000)
    other = batch.inputs[found.mixed.index[1]]
    cut = ((found.inputs == batch.inputs) | (found.inputs == other)).flatten(1).all(1)
    assert 440 < int(cut.sum()) < 560


def test_the_first_of_a_mixed_batch_keep_their_two_labels_and_values():
    batch, found = mixed_batch(AugmentConfig(mixup=1.0), 8)
    few = found.first(3)
    assert torch.equal(few.mixed.targets, found.mixed.targets[:, :3])
    values = torch.arange(8.0)
    share, other = found.mixed.share, found.mixed.index[1]
    torch.testing.assert_close(found.of_examples(values), share * values + (1 - share) * values[other])
    assert torch.equal(batch.of_examples(values), values)


def test_weights_of_examples_are_mixed_by_their_shares():
    batch = split(8).batch(torch.arange(8))._replace(weight=torch.arange(8.0))
    found = Augmentation(AugmentConfig(cutmix=1.0))(batch, 0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.weight, found.of_examples(torch.arange(8.0)))


def test_an_unlabelled_half_adds_nothing_to_the_label_loss():
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([1, UNLABELLED]), torch.arange(2))
    found = Augmentation(AugmentConfig(mixup=1.0))(batch, 0, torch.Generator().manual_seed(1))
    logits = torch.randn(2, 3)
    losses = [
        share * F.cross_entropy(row[None], pair[:1], reduction="sum") if pair[0] >= 0 else torch.zeros(())
        for row, pair, share in zip(logits, found.mixed.targets.T, found.mixed.share, strict=True)
    ]
    losses += [
        (1 - share) * F.cross_entropy(row[None], pair[1:], reduction="sum") if pair[1] >= 0 else torch.zeros(())
        for row, pair, share in zip(logits, found.mixed.targets.T, found.mixed.share, strict=True)
    ]
    loss = Supervised().loss(lambda inputs: logits, found)["cross_entropy"]
    assert loss.item() == pytest.approx(sum(losses).item() / 2, rel=1e-5)


def test_a_training_with_everything_goes_on_bit_for_bit():
    images = split(40)
    config = TrainingConfig(epochs=3, batch_size=16, learning_rate=0.01)
    everything = ALL.model_copy(update={"mixup": 0.5, "cutmix": 0.5})

    def run(seed, **options):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 16, 3))
        torch.nn.init.constant_(network[1].weight, 0.01 * seed)
        fit(
            network,
            Supervised(),
            images,
            images,
            config,
            seed=0,
            device=torch.device("cpu"),
            augmentation=Augmentation(everything),
            **options,
        )
        return network[1].weight.detach().numpy()

    saved = []
    expected = run(1, save=lambda state: saved.append(__import__("copy").deepcopy(state)))
    assert np.array_equal(run(7, resume=saved[0]), expected)
