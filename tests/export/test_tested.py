"""A close look at the test split: confidence, disagreements, shifted inputs."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgestill.export.tested import robustness as measured
from edgestill.export.tested.disagreements import disagreements
from edgestill.export.tested.examine import examine, network_run
from edgestill.export.tested.reliability import reliability
from edgestill.export.tested.robustness import robustness
from edgestill.export.tested.shifts import Shift, shifted, shifts_of
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.tokens import Coder, TokenizerConfig, make_coder
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.calibration import calibration

TEXTS = ["a film that is a joy to see", "dull and far too long", "a moving story of a dog and a boy"] * 4


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(labels=("cat", "dog", "cow"), input_shape=(1, 8, 8), mean=(0.5,), std=(0.3,))


@pytest.fixture(scope="module")
def coder() -> Coder:
    return make_coder(TEXTS, TokenizerConfig(vocab_size=200), 16)


@pytest.fixture(scope="module")
def text_task(coder: Coder) -> Task:
    return Task(
        labels=("good", "bad"), kind="text", input_shape=(coder.length,), mean=(), std=(), vocab_size=coder.vocab_size,
        tokenizer_sha256=coder.sha256,
    )  # fmt: skip


def images(count: int, seed: int = 0) -> ImageSplit:
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8))
    return ImageSplit(pixels, torch.from_numpy(rng.integers(0, 3, count)), "test")


def test_the_bins_sum_to_the_calibration_error_of_the_card() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 2, (300, 4)), rng.integers(0, 4, 300)
    found = reliability(logits, targets)
    assert found.error == pytest.approx(calibration(logits, targets)[0])
    assert (found.n, sum(found.hits)) == (300, int((logits.argmax(1) == targets).sum()))


def logits_of(answers: list[int], sure: list[float]) -> np.ndarray:
    """Logits over three classes whose softmax gives these answers with these probabilities."""
    rows = np.full((len(answers), 3), 0.0)
    for row, answer, share in zip(rows, answers, sure, strict=True):
        row[:] = np.log((1 - share) / 2)
        row[answer] = np.log(share)
    return rows


def test_disagreements_are_counted_by_who_is_right_and_the_surest_mistakes_come_first(task: Task) -> None:
    split = images(6)
    split = ImageSplit(split.images, torch.tensor([0, 0, 0, 1, 2, 2]), "test")
    teacher = logits_of([0, 0, 1, 1, 0, 2], [0.9, 0.9, 0.8, 0.9, 0.5, 0.9])
    student = logits_of([1, 2, 0, 1, 1, 0], [0.6, 0.7, 0.9, 0.9, 0.6, 0.7])
    found = disagreements(teacher, student, split, task)
    assert found.counts == {"teacher": 3, "student": 1, "neither": 1}
    assert [one.index for one in found.shown["teacher"]] == [1, 5, 0]  # 0.7 twice, then 0.6
    (one,) = found.shown["neither"]
    assert (one.index, one.truth, one.teacher.answer, one.student.answer) == (4, 2, 0, 1)
    assert one.student.confidence == pytest.approx(0.6)
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(found.shown["student"][0].image))))
    assert np.array_equal(shown, split.images[2, 0].numpy())


def test_two_that_agree_have_nothing_to_show(task: Task) -> None:
    same = logits_of([0, 1], [0.9, 0.9])
    found = disagreements(same, same, images(2), task)
    assert (sum(found.counts.values()), found.shown) == (0, {})


def named(shifts: tuple[Shift, ...]) -> list[str]:
    return [f"{shift.family} {shift.strength}" for shift in shifts]


def test_shifted_pictures_are_pictures_of_the_same_content(task: Task) -> None:
    shifts, given = shifts_of(task, None), images(20).batch(torch.arange(20)).inputs.contiguous().numpy()
    kept = given.copy()
    for shift in shifts:
        found = shifted(shift, given)
        assert (found.shape, found.dtype) == (given.shape, given.dtype), shift
        assert found.min() >= -1e-6, shift
        assert found.max() <= 1 + 1e-6, shift
        assert np.array_equal(found, shifted(shift, given)), shift
        assert not np.array_equal(found, given), shift
    assert np.array_equal(given, kept)
    by_name = dict(zip(named(shifts), shifts, strict=True))
    half = shifted(by_name["contrast times 0.5"], given)
    assert np.allclose(half.std((1, 2, 3)), given.std((1, 2, 3)) / 2, atol=1e-6)
    assert np.allclose(shifted(by_name["brightness times 0.4"], given), 0.4 * given, atol=1e-6)
    noise = shifted(by_name["noise standard deviation 0.05"], np.full((40, 1, 8, 8), 0.5, np.float32)) - 0.5
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05)


def test_a_blurred_point_spreads_as_a_gaussian(task: Task) -> None:
    blur = next(shift for shift in shifts_of(task, None) if shift.strength.startswith("1 pixels"))
    point = np.zeros((1, 1, 33, 33), np.float32)
    point[0, 0, 16, 16] = 1
    found = shifted(blur, point)[0, 0]
    distance = (np.arange(33) - 16.0) ** 2
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    sigma = (33 / 32) ** 0.5
    assert float((found.sum(0) * distance).sum()) ** 0.5 == pytest.approx(sigma, rel=0.02)


def test_texts_get_typing_mistakes_and_capitals(text_task: Task, coder: Coder) -> None:
    ids = coder.encode(TEXTS)
    assert coder.decode_all(ids) == [coder.decode(row) for row in ids]
    shifts = shifts_of(text_task, coder)
    assert [shift.family for shift in shifts] == ["typing mistakes"] * 3 + ["case"]
    changed = [float((shifted(shift, ids) != ids).any(1).mean()) for shift in shifts]
    assert changed[3] == 0  # the tokenizer lowercases
    assert 0 < changed[0] <= changed[2]
    assert np.array_equal(shifted(shifts[2], ids), shifted(shifts[2], ids))


class Bright(nn.Module):
    """Knows one thing: how bright a picture is."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = inputs.mean((1, 2, 3))
        return torch.stack([1 - mean, mean, torch.zeros_like(mean)], 1)


def bright(task: Task, count: int = 60) -> tuple[Any, ImageSplit]:
    """A network that is always right, and its split of dark and bright pictures."""
    pixels = torch.full((count, 1, 8, 8), 70, dtype=torch.uint8)
    pixels[1::2] = 180
    return network_run(Bright(), torch.device("cpu")), ImageSplit(pixels, torch.arange(count) % 2, "test")


def test_accuracies_under_shifts_are_of_the_shifted_pictures(task: Task) -> None:
    run, split = bright(task)
    found = robustness(run, lambda given: run(given)[:, ::-1][:, [1, 2, 0]], split, task, None)
    assert found.n == 60
    assert found.clean is not None
    by = {(row.shift, row.strength): row for row in found.rows}
    assert found.clean.teacher == 1
    assert by["contrast", "times 0.25"].teacher == 1
    assert by["brightness", "times 0.4"].teacher == 0.5  # all are dark
    assert found.left_out == ""


def test_what_would_take_too_long_is_measured_on_fewer_examples_or_not_at_all(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, split = bright(task, 300)
    shifts = len(shifts_of(task, None))
    for each, n in ((0.01, 300), (0.015, 200), (0.03, 100), (1.0, 0)):
        monkeypatch.setattr(measured, "_seconds_of_each", lambda *given, each=each: each)
        monkeypatch.setattr(measured, "MOST_S", 0.01 * 301 * (1 + shifts))
        found = robustness(run, run, split, task, None)
        assert found.n == n
        assert bool(found.left_out) == (n < 300)
    assert found.left_out.startswith("50 examples would have taken more than")


def test_the_look_survives_json_and_needs_no_second_opinion_of_a_black_box(task: Task) -> None:
    run, split = bright(task)
    teacher = Bright()
    logits = run(split.batch(torch.arange(60)).inputs.numpy())
    found = examine(teacher, logits, run, logits, split, task, torch.device("cpu"))
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert found.robustness is not None
    teacher.gives = frozenset({"logits"})  # type: ignore[assignment]
    assert examine(teacher, logits, run, logits, split, task, torch.device("cpu")).robustness is None
