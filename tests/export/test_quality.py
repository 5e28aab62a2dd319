"""What the card says of a model, against closed forms and another library."""

import numpy as np
import pytest

from edgestill.export.quality import accuracy, logits_of, perturbed
from edgestill.pipeline.task import Task

IMAGES = Task(labels=("a", "b"), input_shape=(2, 32, 16), mean=(0, 0), std=(1, 1))
TEXTS = Task(kind="text", labels=("a", "b"), input_shape=(50,), vocab_size=1000)


def test_batches_are_put_together_in_order():
    inputs = np.arange(1000, dtype=np.float32)[:, None]
    assert np.array_equal(logits_of(lambda batch: batch * 2, inputs), inputs * 2)
    assert accuracy(np.eye(3), np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_damaged_images_are_as_their_names_say():
    images = np.random.default_rng(0).random((20, *IMAGES.input_shape), dtype=np.float32) * 0.5 + 0.25
    found = dict(perturbed(images, IMAGES))
    assert all(damaged.dtype == np.float32 and damaged.shape == images.shape for damaged in found.values())
    assert all(damaged.min() >= 0 and damaged.max() <= 1 for damaged in found.values())
    noise = found["Gaussian noise, standard deviation 0.05"] - images
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    flat = found["contrast halved"]
    assert flat.std((1, 2, 3)) == pytest.approx(images.std((1, 2, 3)) / 2, rel=1e-4)
    assert flat.mean((1, 2, 3)) == pytest.approx(images.mean((1, 2, 3)), rel=1e-5)
    blurred = found["blur, 1-2-1 along both sides"]
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    assert blurred[3, 1, 4, 5] == pytest.approx((images[3, 1, 3:6, 4:7] * weights).sum(), abs=1e-6)
    shifted = found["shift by a sixteenth of the side"]
    moves = {
        (y, x)
        for before, after in zip(images, shifted, strict=True)
        for y in (-2, 2)
        for x in (-1, 1)
        if np.array_equal(np.roll(before, (-y, -x), (1, 2))[:, 2:-2, 1:-1], after[:, 2:-2, 1:-1])
    }
    assert moves == {(-2, -1), (-2, 1), (2, -1), (2, 1)}


def test_damaged_texts_are_as_their_names_say():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 51, 200)
    ids = np.where(np.arange(50) < lengths[:, None], rng.integers(1, 1000, (200, 50)), 0)
    found = dict(perturbed(ids, TEXTS))
    for name, share in (("a tenth of the tokens dropped", 0.1), ("three tenths of the tokens dropped", 0.3)):
        kept = (found[name] != 0).sum()
        assert kept / (ids != 0).sum() == pytest.approx(1 - share, abs=0.03)
        for before, after in zip(ids, found[name], strict=True):
            left = after[after != 0].tolist()
            assert after[0] == before[0]
            assert after[len(left) :].sum() == 0
            rest = iter(before.tolist())
            assert all(token in rest for token in left)  # in order
    swapped = found["a fifth of neighbouring pairs swapped"]
    assert np.array_equal(np.sort(swapped), np.sort(ids))
    assert 0.1 < (swapped != ids).sum() / (ids != 0).sum() < 0.3


@pytest.mark.parametrize(
    ("task", "inputs"), [(IMAGES, np.ones((3, 2, 32, 16), np.float32)), (TEXTS, np.ones((3, 50), int))]
)
def test_damage_is_the_same_for_the_same_seed_and_spares_the_originals(task, inputs):
    kept = inputs.copy()
    first, second = dict(perturbed(inputs, task)), dict(perturbed(inputs, task))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(inputs, kept)
