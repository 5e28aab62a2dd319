"""Images in files of rows, against the same images in memory."""

import pickle

import numpy as np
import pytest
import torch

from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.errors import DataError


def stored(folder, count=20, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 5), np.uint8)
    path = folder / f"{seed}.rows"
    path.write_bytes(images.tobytes())
    digests = np.arange(count * 16, dtype=np.uint8).reshape(count, 16)
    return images, StoredImages([RowFile(path, digests)], (3, 4, 5))


def test_rows_are_those_of_the_array_in_any_order(tmp_path):
    images, found = stored(tmp_path)
    index = torch.tensor([3, 3, 19, 0])
    assert torch.equal(found[index], torch.from_numpy(images)[index])
    assert found.shape == (20, 3, 4, 5)
    chosen = found.select(torch.tensor([5, 2]))
    assert torch.equal(chosen[torch.tensor([1])], torch.from_numpy(images[2:3]))
    assert chosen.digests()[0].tolist() == found.digests()[5].tolist()


def test_files_are_joined_and_sent_to_another_process(tmp_path):
    one, found = stored(tmp_path)
    other, more = stored(tmp_path, seed=1)
    both = pickle.loads(pickle.dumps(found.select(torch.arange(3)).joined(more)))
    assert torch.equal(both[torch.arange(len(both))], torch.from_numpy(np.concatenate([one[:3], other])))


def test_a_split_in_files_gives_the_batches_of_one_in_memory(tmp_path):
    images, found = stored(tmp_path)
    targets = torch.arange(20) % 3
    targets[4] = UNLABELLED
    in_files, in_memory = ImageSplit(found, targets), ImageSplit(torch.from_numpy(images), targets)
    for one, other in zip(in_files.labelled().batches(8), in_memory.labelled().batches(8), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def test_a_file_that_was_cut_is_refused(tmp_path):
    _, found = stored(tmp_path)
    path = tmp_path / "0.rows"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        found[torch.arange(20)]
    with pytest.raises(DataError, match="damaged"):
        found.select(torch.arange(2))
