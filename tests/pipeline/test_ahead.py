"""Reading ahead changes no bit, and its faults come out where the batch is asked for."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from edgestill.pipeline.data import ahead
from edgestill.pipeline.data.ahead import batches_ahead
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")


@pytest.fixture
def splits(tmp_path):
    """The same images in a file and in memory."""
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8)
    path = tmp_path / "images.rows"
    path.write_bytes(images.tobytes())
    stored = StoredImages([RowFile(path, np.zeros((50, 16), np.uint8))], (3, 8, 8))
    targets = torch.arange(50) % 3
    return ImageSplit(stored, targets), ImageSplit(torch.from_numpy(images), targets)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_batches_are_those_read_at_once_in_their_order(splits, count):
    in_file, in_memory = splits
    chosen = torch.randperm(50).split(7)[:count]
    found = list(batches_ahead(in_file, chosen, CPU))
    assert len(found) == count
    for index, batch in zip(chosen, found, strict=True):
        expected = in_memory.batch(index)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.index, index)


def test_a_training_from_files_ends_with_the_bits_of_one_from_memory(splits):
    config = TrainingConfig(epochs=2, batch_size=16, learning_rate=0.01)
    augmentation = Augmentation(AugmentConfig(flip=True, crop=(0.3, 1), mixup=0.5))
    weights = []
    for split in splits:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        fit(network, Supervised(), split, split, config, seed=0, device=CPU, augmentation=augmentation)
        weights.append(network[1].weight)
    assert torch.equal(*weights)


def test_the_next_batches_are_read_while_one_is_used(monkeypatch, splits):
    in_file, read = splits[0], []
    plain = StoredImages.__getitem__

    def watched(self, index):
        read.append(threading.current_thread() is threading.main_thread())
        return plain(self, index)

    monkeypatch.setattr(StoredImages, "__getitem__", watched)
    batches = batches_ahead(in_file, torch.arange(50).split(10), CPU)
    next(batches)
    for _ in range(500):
        if len(read) == 3:
            break
        time.sleep(0.01)
    assert read == [False] * 3  # the one that is used, and two more
    batches.close()


def test_a_file_cut_meanwhile_is_told_by_its_sentence(splits, tmp_path):
    path = tmp_path / "images.rows"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="was cut short"):
        list(batches_ahead(splits[0], torch.arange(50).split(25), CPU))


def test_a_disk_that_answers_no_read_ends_the_training_with_a_sentence(monkeypatch, splits):
    hangs = threading.Event()
    monkeypatch.setattr(StoredImages, "__getitem__", lambda self, index: hangs.wait())
    monkeypatch.setattr(ahead, "PATIENCE_S", 0.2)
    batches = batches_ahead(splits[0], torch.arange(50).split(10), CPU)
    with pytest.raises(DataError, match=r"images.rows gave no batch for 0.2 s: its disk or its network mount hangs"):
        next(batches)
    hangs.set()


def test_a_reader_ends_with_the_batches_that_nobody_takes(splits):
    before = threading.enumerate()
    batches = batches_ahead(splits[0], torch.arange(50).split(1), CPU)
    next(batches)
    (reader,) = [one for one in threading.enumerate() if one.name == "read-ahead" and one not in before]
    batches.close()
    reader.join(10)
    assert not reader.is_alive()
