"""Outputs of the teacher that are kept between runs: the same student with and without them, and no stale ones."""

import dataclasses
import json

import pytest
import torch

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.train import distill
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data import teacher_cache
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.teacher_cache import Outputs, RowTable, content_key
from edgestill.pipeline.networks.network import View

CPU = torch.device("cpu")


class Counting(torch.nn.Module):
    """A teacher that counts the images it is shown; `shift` is of its code, not of its weights."""

    def __init__(self, network, shift=0.0):
        super().__init__()
        self.network, self.shown, self.shift = network, 0, shift

    def forward_features(self, inputs):
        self.shown += len(inputs)
        return self.network.forward_features(inputs) + self.shift

    def forward_head(self, features, pre_logits=False):
        return self.network.forward_head(features, pre_logits)

    def get_classifier(self):
        return self.network.get_classifier()


@pytest.fixture
def run(monkeypatch, tmp_path, make_network, make_task, make_splits):
    """Distils and gives the student's weights and the number of images that the teacher was shown."""
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))

    def make(teacher=1, methods=("kd",), kept=True, augment=None, views=0, train=64, shift=0.0):
        splits = make_splits(make_task(), augment, train=train)
        splits = dataclasses.replace(splits, digests={"train": "a"} if kept else {})
        shown = Counting(make_network(teacher), shift)
        config = DistillConfig(methods=methods, training=StudentTrainingConfig(epochs=3, batch_size=16, views=views))
        found = distill(make_network(2), shown, splits, config, seed=0, device=CPU)
        return found.student.state_dict(), shown.shown

    return make


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def folders():
    return sorted((cache_folder() / "teacher").iterdir())


@pytest.mark.parametrize(
    ("methods", "augment", "views"),
    [(["kd"], None, 0), (["kd", "rkd", "diswot_plus"], None, 0), (["kd"], AugmentConfig(pad=1, crop=(0.5, 1)), 2)],
)
@pytest.mark.parametrize("in_memory", [2**28, 0], ids=["in memory", "row by row"])
def test_the_student_is_the_same_with_kept_outputs_and_the_teacher_is_not_asked_again(
    monkeypatch, run, methods, augment, views, in_memory
):
    monkeypatch.setattr(teacher_cache, "IN_MEMORY_BYTES", in_memory)
    settings = {"methods": methods, "augment": augment, "views": views}
    expected, shown = run(kept=False, **settings)
    first, _ = run(**settings)
    again, shown_again = run(**settings)
    assert same(first, expected)
    assert same(again, expected)
    looks = max(views, 1)
    assert shown >= 64 * looks
    assert shown_again <= shown - 64 * looks + 4 * looks  # four show that it is the same teacher
    assert len(folders()) == looks


def test_other_weights_examples_or_views_have_other_outputs(run):
    run()
    for changes in ({"teacher": 3}, {"train": 48}, {"methods": ("kd", "diswot_plus")}):
        before = len(folders())
        run(**changes)
        assert len(folders()) == before + 1, changes


def test_a_teacher_of_the_same_weights_and_other_code_is_asked_anew(run):
    run()
    kept, shown = run(shift=0.5)
    assert shown >= 64
    assert same(kept, run(shift=0.5, kept=False)[0])


@pytest.mark.parametrize("damage", ["logits", "embedding", "outputs.json", "cut"])
def test_damaged_outputs_are_computed_anew(run, damage):
    expected, _ = run()
    (folder,) = folders()
    path = folder / ("logits" if damage == "cut" else damage)
    data = bytearray(path.read_bytes())
    data[3] ^= 64
    path.write_bytes(data[:-8] if damage == "cut" else bytes(data))
    found, shown = run()
    assert same(found, expected)
    assert shown >= 64
    assert run()[1] == 4


def test_a_place_that_cannot_be_written_costs_time_only(monkeypatch, run, tmp_path):
    expected, _ = run(kept=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "file"))
    assert same(run()[0], expected)


def test_outputs_that_would_fill_the_disk_are_not_written(monkeypatch, run):
    expected, _ = run(kept=False)
    monkeypatch.setattr(teacher_cache, "_MOST_SHARE", 0.0)
    assert same(run()[0], expected)
    assert folders() == []


def test_a_folder_says_what_it_holds(run):
    run()
    (folder,) = folders()
    about = json.loads((folder / "outputs.json").read_text())
    assert about["what"] == "outputs of a teacher on 64 examples"
    assert about["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".json")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_in_the_order_asked_for(tmp_path, dtype):
    values = torch.randn(10, 2, 3).to(dtype)
    (tmp_path / "rows").write_bytes(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    table = RowTable(tmp_path / "rows", dtype, (10, 2, 3))
    index = torch.tensor([7, 7, 0])
    assert torch.equal(table.rows(index.numpy()), values[index])
    parts = dict.fromkeys(View._fields, table) | {"features": RowTable(tmp_path / "none", dtype, (0, 2, 3))}
    found = Outputs(parts, CPU).rows(index)
    assert torch.equal(found.logits, values[index])
    assert found.features.shape == (0, 2, 3)


def test_a_key_depends_on_weights_and_pixels(make_network):
    images = ImageSplit(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    other = dataclasses.replace(images, images=images.images.clone())
    assert content_key(make_network(1), images) == content_key(make_network(1), other)
    other.images[3, 0, 7, 7] += 1e-3
    keys = {content_key(make_network(n), split, extra) for n in (1, 2) for split in (images, other) for extra in (0, 1)}
    assert len(keys) == 8
