"""What a data file may look like, and what is said of one that cannot be used."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.datasets.npz import load_npz
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import UNLABELLED, draw_batch
from edgestill.pipeline.errors import DataError


def arrays(**changes):
    rng = np.random.default_rng(0)
    given = {
        "x_train": rng.integers(0, 256, (40, 6, 5), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (8, 6, 5), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }
    return {key: value for key, value in (given | changes).items() if value is not None}


@pytest.fixture
def load(tmp_path):
    def run(labels=None, save=np.savez, **changes):
        path = tmp_path / "data.npz"
        save(path, **arrays(**changes))
        return load_npz(NpzConfig(path=path, labels=labels))

    return run


def test_grey_images_without_a_channel_axis_get_one(load):
    raw = load()
    assert raw.train.images.shape == (40, 1, 6, 5)
    assert np.array_equal(raw.train.images[:, 0], arrays()["x_train"])
    assert raw.labels == ("0", "1", "2", "3")


def test_the_channel_axis_comes_last_in_the_file_and_first_in_memory(load):
    colour = np.random.default_rng(1).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    raw = load(x_train=colour, x_test=colour[:8])
    assert raw.train.images.shape == (40, 3, 6, 5)
    for channel in range(3):
        assert np.array_equal(raw.train.images[:, channel], colour[..., channel])


def test_labels_may_be_a_column_as_in_keras_cifar10(load):
    column = (np.arange(40) % 4)[:, None].astype(np.uint8)
    raw = load(y_train=column)
    assert raw.train.targets.shape == (40,)
    assert raw.train.targets.dtype == np.int64
    assert raw.train.targets.tolist() == column[:, 0].tolist()


def test_images_without_labels_join_the_training_images_and_no_other_split(tmp_path):
    path, more = tmp_path / "data.npz", np.random.default_rng(2).integers(0, 256, (15, 6, 5), dtype=np.uint8)
    np.savez(path, **arrays(x_unlabelled=more))
    splits = load_splits(NpzConfig(path=path), seed=0)
    np.savez(path, **arrays())
    plain = load_splits(NpzConfig(path=path), seed=0)
    assert len(splits.train) == len(plain.train) + 15
    assert np.array_equal(splits.train.images[-15:, 0], more)
    assert splits.train.targets[-15:].tolist() == [UNLABELLED] * 15
    assert np.array_equal(splits.train.labelled().images, plain.train.images)
    assert np.array_equal(splits.train.labelled().targets, plain.train.targets)
    for name in ("reference", "validation"):
        assert np.array_equal(getattr(splits, name).images, getattr(plain, name).images)
    assert splits.sizes == plain.sizes | {"unlabelled": 15}
    assert splits.task == plain.task
    drawn = draw_batch(splits.train, len(plain.train), seed=0)
    assert drawn.targets.min() >= 0
    with pytest.raises(DataError, match="a batch of"):
        draw_batch(splits.train, len(plain.train) + 1, seed=0)


def test_images_without_labels_have_the_shape_of_those_with(load):
    for wrong in (np.zeros((3, 6, 6), np.uint8), np.zeros((3, 6, 5, 3), np.uint8)):
        with pytest.raises(DataError, match=r"x_unlabelled holds images of .* they must be equal"):
            load(x_unlabelled=wrong)
    with pytest.raises(DataError, match="x_unlabelled is int64"):
        load(x_unlabelled=np.zeros((3, 6, 5), int))
    with pytest.raises(DataError, match="x_unlabelled is empty"):
        load(x_unlabelled=np.zeros((0, 6, 5), np.uint8))


def test_compressed_files_and_unused_keys_are_fine(load):
    raw = load(save=np.savez_compressed, extra=np.arange(3))
    assert raw.test is not None
    assert len(raw.test.targets) == 8


def test_floats_in_the_unit_interval_are_kept(load):
    floats = np.random.default_rng(3).random((40, 6, 5))
    raw = load(x_train=floats, x_test=floats[:8])
    assert raw.train.images.dtype == np.float32
    assert np.array_equal(raw.train.images[:, 0], floats.astype(np.float32))


def test_channels_first_are_understood_and_said(load):
    first = np.random.default_rng(3).integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
    raw = load(x_train=first, x_test=first[:8])
    assert np.array_equal(raw.train.images, first)
    assert "x_train [40, 3, 6, 5] is taken as [N, C, H, W], 3 channels first of 6 x 5 pixels" in raw.cautions[0]
    assert load().cautions == ()


def test_one_hot_labels_are_understood_and_said(load):
    raw = load(y_train=np.eye(4, dtype=np.float32)[np.arange(40) % 4], y_test=np.eye(4)[np.arange(8) % 4])
    assert raw.train.targets.tolist() == [n % 4 for n in range(40)]
    assert "y_train [40, 4] is one-hot" in raw.cautions[0]


def test_labels_may_be_names(load):
    names = np.array(["owl", "ant", "cat", "bee"])
    given = {"y_train": names[np.arange(40) % 4], "y_test": names[np.arange(8) % 4].astype("S")}
    raw = load(**given)
    assert raw.labels == ("ant", "bee", "cat", "owl")
    assert raw.train.targets[:4].tolist() == [3, 0, 2, 1]
    assert load(labels=tuple(names), **given).train.targets[:4].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="y_test holds label 'emu', which is none of the 4 classes"):
        load(**given | {"y_test": np.full(8, "emu")})


def test_classes_may_be_named(load):
    assert load(labels=("a", "b", "c", "d")).labels == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": None}, "lacks y_train; it holds x_train, x_test, y_test, and"),
        ({"x_train": np.zeros((40, 6, 5), int)}, r"x_train is int64 \[40, 6, 5\]; it must be uint8 \[N, H, W, C\]"),
        ({"x_train": np.full((40, 6, 5), 7.0)}, r"from 7 to 7; floats must lie in \[0, 1\]: save x_train.astype"),
        ({"x_train": np.full((40, 6, 5), -2.0)}, "from -2 to -2; floats must lie in .* leave normalisation out"),
        ({"y_test": np.full(8, "a")}, "y_test is <U1; labels must be integers"),
        ({"x_train": np.zeros((40, 30), np.uint8)}, r"x_train is uint8 \[40, 30\]; it must be"),
        ({"y_test": np.zeros(8)}, r"y_test is float64; labels must be integers: save y_test.astype\('int64'\)"),
        ({"y_test": np.full(8, 0.5)}, "y_test is float64; labels must be integers$"),
        ({"y_test": np.zeros(8, bool)}, r"y_test is bool; labels must be integers: save y_test.astype\('int64'\)"),
        ({"x_train": np.full((40, 6, 5), np.nan)}, "some are not numbers; mend those"),
        ({"x_train": np.full((40, 6, 5), 9)}, r"x_train is int64 .* save x_train.astype\('uint8'\)$"),
        ({"x_train": np.full((40, 6, 5), 999)}, "x_train is int64 .* scale x_train to 0 to 255"),
        ({"x_train": np.ones((40, 6, 5), bool)}, r"save x_train.astype\('uint8'\) \* 255"),
        ({"x_val": np.zeros((8, 6, 5), np.uint8)}, "one of x_val and y_val; save both or none"),
        ({"y_train": np.zeros(39, int)}, r"y_train has shape \[39\] for 40 images"),
        ({"y_train": np.eye(4, dtype=int)[np.arange(40) % 4] * 2}, r"y_train has shape \[40, 4\] for 40 images"),
        ({"y_test": np.full(8, 4)}, "y_test holds label 4, but the 4 classes are 0 to 3"),
        (
            {"y_train": np.r_[-1, np.arange(39) % 4]},
            "y_train holds label -1, but the 4 classes are 0 to 3; renumber them, from 0 on",
        ),
        ({"y_train": np.arange(40) % 4 + (np.arange(40) % 4 > 1)}, r"class 2 \('2'\) has no image in x_train"),
        ({"y_train": np.r_[10**12, np.arange(39) % 4]}, "y_train holds label 1000000000000"),
        ({"y_train": np.zeros(40, int), "y_test": np.zeros(8, int)}, "y_train holds one class only"),
        ({"x_train": np.zeros((0, 6, 5), np.uint8), "y_train": np.zeros(0, int)}, "x_train is empty"),
        ({"x_test": np.zeros((8, 5, 5), np.uint8)}, r"= \[1, 6, 5\] and x_test of \[1, 5, 5\]"),
        ({"x_train": np.zeros((40, 3, 6, 32), np.uint8)}, "would have 32 channels; the channel axis comes last"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(load, changes, said):
    with pytest.raises(DataError, match=said) as caught:
        load(**changes)
    assert "\n" not in str(caught.value)
    assert "data.npz" in str(caught.value)


def test_a_validation_part_is_taken(load):
    given = {"x_val": np.full((6, 6, 5), 7, np.uint8), "y_val": np.arange(6) % 4}
    raw = load(**given)
    assert raw.validation.images.tolist() == np.full((6, 1, 6, 5), 7).tolist()
    assert raw.validation.targets.tolist() == [0, 1, 2, 3, 0, 1]
    with pytest.raises(DataError, match=r"x_train holds .* and x_val of \[1, 3, 3\]"):
        load(**given | {"x_val": np.zeros((6, 3, 3), np.uint8)})
    with pytest.raises(DataError, match="y_val holds label 9"):
        load(**given | {"y_val": np.full(6, 9)})


def test_more_classes_than_names_are_refused(load):
    with pytest.raises(DataError, match="y_train holds label 3, but the 3 classes are 0 to 2"):
        load(labels=("a", "b", "c"))
    with pytest.raises(DataError, match=r"class 4 \('e'\) has no image"):
        load(labels=tuple("abcde"))


def test_a_missing_file_is_named_with_what_it_should_hold(tmp_path):
    with pytest.raises(DataError, match=r"no data file at .*nowhere.npz; give an .npz file with x_train, y_train"):
        load_npz(NpzConfig(path=tmp_path / "nowhere.npz"))


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"truncated or not an \.npz file"):
        load_npz(NpzConfig(path=path))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    data = bytearray(path.read_bytes())
    data[120:160] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"truncated or not an \.npz file"):
        load_npz(NpzConfig(path=path))


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"\x89PNG\r\n\x1a\n0000"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"truncated or not an \.npz file \(arrays of numbers and of text") as refused:
        load_npz(NpzConfig(path=path))
    assert "pickle" not in str(refused.value)


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"single .npy array"):
        load_npz(NpzConfig(path=path))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_an_array_of_objects_is_refused_and_its_code_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(x_train=trap))
    with pytest.raises(DataError):
        load_npz(NpzConfig(path=path))
    assert not sprung.exists()
    np.load(path, allow_pickle=True)["x_train"]  # the trap works where pickles are allowed
    assert sprung.exists()


def test_a_bare_pickle_is_refused_and_its_code_not_run(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(DataError):
        load_npz(NpzConfig(path=path))
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", pickle.dumps(Trap(sprung)))
    with pytest.raises(DataError):
        load_npz(NpzConfig(path=path))
    assert not sprung.exists()


def test_a_data_file_goes_all_the_way_to_splits(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    splits = load_splits(NpzConfig(path=path, reference_fraction=0.2, validation_fraction=0.2), seed=0)
    assert splits.task.input_shape == (1, 6, 5)
    assert splits.sizes == {"test": 8, "validation": 8, "reference": 8, "train": 24}
