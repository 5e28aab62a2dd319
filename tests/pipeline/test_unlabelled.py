"""A folder of pictures without labels joins the training images, and the teacher alone answers for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from edgestill.pipeline.data.datasets import NpzConfig, TextConfig
from edgestill.pipeline.data.datasets.base import LabelledImages, RawData
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import UNLABELLED
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
