"""CIFAR's official binary version."""

import numpy as np
import pytest

from edgestill.pipeline.data.datasets.cifar import CifarConfig, load_cifar
from edgestill.pipeline.errors import DataError

NAMES = [f"class {k}" for k in range(10)]


def batch(path, count, seed, label_bytes=1):
    """Records as the official page defines them; gives what is in them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count, 3, 32, 32), dtype=np.uint8)
    targets = rng.integers(10, size=count, dtype=np.uint8)
    coarse = b"\x05" if label_bytes == 2 else b""
    path.write_bytes(b"".join(coarse + bytes([t]) + image.tobytes() for t, image in zip(targets, images, strict=True)))
    return images, targets


@pytest.fixture
def folder(tmp_path):
    parts = [batch(tmp_path / f"data_batch_{i}.bin", 4, i) for i in range(1, 6)]
    test = batch(tmp_path / "test_batch.bin", 3, 9)
    (tmp_path / "batches.meta.txt").write_text("\n".join([*NAMES, "", ""]))
    return tmp_path, parts, test


def test_the_binary_version_is_read_in_order(folder):
    path, parts, test = folder
    found = load_cifar(CifarConfig(path=path))
    assert np.array_equal(found.train.images, np.concatenate([images for images, _ in parts]))
    assert found.train.targets.tolist() == np.concatenate([targets for _, targets in parts]).tolist()
    assert np.array_equal(found.test.images, test[0])
    assert found.labels == tuple(NAMES)


def test_the_fine_label_of_cifar_100_is_the_second_byte(tmp_path):
    images, targets = batch(tmp_path / "train.bin", 5, 0, label_bytes=2)
    batch(tmp_path / "test.bin", 2, 1, label_bytes=2)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(NAMES))
    found = load_cifar(CifarConfig(path=tmp_path))
    assert np.array_equal(found.train.images, images)
    assert found.train.targets.tolist() == targets.tolist()


def test_the_python_version_is_refused_unread(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(DataError, match="pickles: fetch the binary version"):
        load_cifar(CifarConfig(path=tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("data_batch_3.bin", b"\x00" * 3000, "3,000 bytes, which is no whole number of records of 3,073"),
        ("data_batch_2.bin", b"", "0 bytes"),
        ("test_batch.bin", b"\x0b" + b"\x00" * 3072, "label 11, and there are 10 classes"),
        ("test_batch.bin", None, "no test_batch.bin"),
        ("batches.meta.txt", None, "name the classes in data.labels"),
        ("data_batch_1.bin", None, "neither data_batch_1.bin nor train.bin"),
    ],
)
def test_a_damaged_folder_is_one_sentence(folder, name, content, sentence):
    path = folder[0] / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_cifar(CifarConfig(path=folder[0]))


def test_labels_of_the_configuration_come_first(folder):
    assert load_cifar(CifarConfig(path=folder[0], labels=tuple("abcdefghij"))).labels == tuple("abcdefghij")
