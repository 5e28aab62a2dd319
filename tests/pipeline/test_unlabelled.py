"""A folder of pictures without labels joins the training images, and the teacher alone answers for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgestill.pipeline.data.datasets import NpzConfig, TextConfig
from edgestill.pipeline.data.datasets.base import LabelledImages, RawData
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import UNLABELLED, with_few_labels
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.data.unlabelled import with_unlabelled
from edgestill.pipeline.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Five pictures, flat and nested, one of them damaged, and a file that is none."""
    root = tmp_path / "more"
    for n, name in enumerate(("b.png", "a.png", "deep/er/c.png", "deep/d.bmp")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 50 * n, np.uint8)).save(path)
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def npz(tmp_path, **more):
    images = RNG.integers(0, 256, (60, 8, 8), np.uint8)
    labels = np.arange(60) % 2
    path = tmp_path / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20], **more)
    return path


@pytest.mark.parametrize("own", [0, 3])
def test_they_follow_the_training_images_without_labels_and_by_the_same_rule(tmp_path, folder, own):
    more = {"x_unlabelled": np.zeros((own, 8, 8), np.uint8)} if own else {}
    path = npz(tmp_path, **more)
    plain = load_splits(NpzConfig(path=path), 0)
    found = load_splits(NpzConfig(path=path, unlabelled=folder), 0)
    count = len(plain.train.labelled())
    assert len(found.train) == count + own + 4
    assert torch.equal(found.train.labelled().images, plain.train.labelled().images)
    assert (found.train.targets[count:] == UNLABELLED).all()
    levels = found.train.images[count + own :].float().mean((1, 2, 3)).round().tolist()
    assert levels == [50, 0, 150, 100]  # sorted by name; grey, as the training images are
    assert found.sizes["unlabelled"] == own + 4
    assert found.task == plain.task
    assert {k: v for k, v in found.digests.items() if k != "unlabelled"} == {
        k: v for k, v in plain.digests.items() if k != "unlabelled"
    }
    assert "4 pictures" in found.cautions[-1]


def test_images_in_files_stay_there(tmp_path, folder):
    path = tmp_path / "train.rows"
    path.write_bytes(bytes(10 * 3 * 64))
    stored = StoredImages([RowFile(path, np.zeros((10, 16), np.uint8))], (3, 8, 8))
    raw = RawData(LabelledImages(stored, np.zeros(10, np.int64)), None, ("a", "b"))
    config = NpzConfig(path=path, unlabelled=folder)
    once = with_unlabelled(raw, config)
    assert isinstance(once.unlabelled, StoredImages)
    assert once.unlabelled.shape == (4, 3, 8, 8)
    assert len(with_unlabelled(once, config).unlabelled) == 8


def test_unreadable_ones_are_counted_and_many_are_refused(folder):
    raw = RawData(LabelledImages(np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64)), None, ("a", "b"))
    config = NpzConfig(path="x.npz", unlabelled=folder)
    assert with_unlabelled(raw, config).unlabelled.max() == np.float32(150 / 255)
    (folder / "z.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"data.unlabelled: 1 of 5 pictures of .* cannot be read: z.png"):
        with_unlabelled(raw, config)


def test_an_empty_folder_no_folder_and_text_are_refused(tmp_path, folder):
    raw = RawData(LabelledImages(np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64)), None, ("a", "b"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        with_unlabelled(raw, NpzConfig(path="x.npz", unlabelled=tmp_path / "empty"))
    with pytest.raises(ValueError, match="no folder at"):
        NpzConfig.model_validate(
            {"path": npz(tmp_path), "unlabelled": tmp_path / "none"}, context={"check_files": True}
        )
    with pytest.raises(ValueError, match="this data is text"):
        TextConfig(path="x", unlabelled=folder)


@pytest.mark.parametrize("key", ["x", "x_train", "x_unlabelled"])
def test_a_file_of_images_joins_as_a_folder_does_and_is_the_pool(tmp_path, key):
    path, more = npz(tmp_path), tmp_path / "more.npz"
    images = RNG.integers(0, 256, (7, 8, 8), np.uint8)
    np.savez(more, **{key: images.astype(np.float64) / 255 if key == "x" else images})
    found = load_splits(NpzConfig(path=path, unlabelled=more), 0)
    assert found.sizes["unlabelled"] == 7
    assert "7 images" in found.cautions[-1]
    assert torch.equal(found.pool.images[:, 0], torch.from_numpy(images))
    assert (found.pool.targets == UNLABELLED).all()
    assert load_splits(NpzConfig(path=path), 0).pool is None
    other = load_splits(NpzConfig(path=path, unlabelled=_changed(more, key)), 0)
    assert other.digests["unlabelled"] != found.digests["unlabelled"]


def _changed(path, key):
    with np.load(path) as archive:
        images = archive[key].copy()
    images[0, 0, 0] = 0 if images[0, 0, 0] else 1
    np.savez(path, **{key: images})
    return path


def test_a_file_without_images_or_of_another_size_or_beside_stored_pictures_is_refused(tmp_path):
    path, more = npz(tmp_path), tmp_path / "more.npz"
    for arrays, said in (
        ({"y": np.zeros(3)}, "holds none of x_unlabelled, x_train, x"),
        ({"x": np.zeros((3, 9, 8), np.uint8)}, "they must be equal"),
        ({"x": np.full((3, 8, 8), 7.5)}, "not in"),
    ):
        np.savez(more, **arrays)
        with pytest.raises(DataError, match=said):
            load_splits(NpzConfig(path=path, unlabelled=more), 0)
    rows = tmp_path / "train.rows"
    rows.write_bytes(bytes(10 * 3 * 64))
    stored = StoredImages([RowFile(rows, np.zeros((10, 16), np.uint8))], (3, 8, 8))
    raw = RawData(LabelledImages(stored, np.zeros(10, np.int64)), None, ("a", "b"))
    with pytest.raises(DataError, match="give a folder"):
        with_unlabelled(raw, NpzConfig(path=path, unlabelled=more))


def test_test_images_among_those_without_labels_are_told(tmp_path):
    path, more = npz(tmp_path), tmp_path / "more.npz"
    with np.load(path) as archive:
        np.savez(more, x=np.concatenate([archive["x_test"][:4], np.zeros((3, 8, 8), np.uint8)]))
    found = load_splits(NpzConfig(path=path, unlabelled=more), 0, looking=True)
    told = [finding for finding in found.look.findings if finding.name == "shared with unlabelled"]
    assert any(finding.count == 4 and "test examples" in finding.sentence for finding in told)
    assert all(finding.is_caution for finding in told)


def test_few_labels_are_as_many_of_each_class_and_the_same_for_the_same_seed(tmp_path):
    train = load_splits(NpzConfig(path=npz(tmp_path)), 0).train
    few = with_few_labels(train, 5, seed=1)
    assert len(few) == len(train)
    kept = few.targets != UNLABELLED
    assert torch.equal(few.targets[kept], train.targets[kept])
    assert torch.bincount(few.targets[kept]).tolist() == [5, 5]
    assert torch.equal(few.targets, with_few_labels(train, 5, seed=1).targets)
    assert not torch.equal(few.targets, with_few_labels(train, 5, seed=2).targets)
