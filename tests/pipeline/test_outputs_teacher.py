"""Answers in a file as a teacher: rows by id, asked by content; what the file lacks is told by name."""

import numpy as np
import pytest
import torch

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import build_teacher, load_teacher, make_teacher
from edgestill.pipeline.teachers.outputs import OutputsConfig

TASK = Task(labels=("cat", "dog", "fish"), input_shape=(1, 4, 4), mean=(0.5,), std=(0.5,))
IDS = np.array([f"pets/{n}.png" for n in range(6)])
LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    def run(name="answers.npz", **arrays):
        np.savez(tmp_path / name, **({"ids": IDS, "logits": LOGITS} | arrays))
        return OutputsConfig(file=tmp_path / name)

    return run


def split_of(images, ids=IDS):
    return ImageSplit(images, torch.zeros(len(images), dtype=torch.int64), "train", ids)


def met(config, split, task=TASK):
    network = build_teacher(config, task)
    make_teacher(config).meet(network, [split])
    return network


FORMS = {
    "bytes": torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    "floats": torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
    "tokens": torch.randint(0, 50, (6, 7), generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_example_gets_its_row_in_any_order(write, form):
    split = split_of(FORMS[form])
    network = met(write(embedding=2 * LOGITS), split)
    index = torch.tensor([4, 0, 5, 0])
    view = look(network, split.batch(index).inputs)
    assert torch.equal(view.logits, torch.from_numpy(LOGITS)[index])
    assert torch.equal(view.embedding, 2 * torch.from_numpy(LOGITS)[index])
    assert network.gives == {"logits", "embedding"}
    assert network.embedding_dim == 3


def test_rows_go_by_id_and_classes_by_name(write):
    order, classes = np.array([3, 1, 0, 5, 2, 4]), np.array([2, 0, 1])
    shuffled = write(ids=IDS[order], logits=LOGITS[order][:, classes], labels=np.array(TASK.labels)[classes])
    split = split_of(FORMS["bytes"])
    network = met(shuffled, split)
    assert torch.equal(network(split.batch(torch.arange(6)).inputs), torch.from_numpy(LOGITS))
    assert "mapped to the data's by name" in network.cautions[0]


def test_probabilities_are_noticed(write, tmp_path):
    shares = torch.from_numpy(LOGITS).softmax(1)
    table = tmp_path / "answers.csv"
    lines = [",".join([name, *map(str, row)]) for name, row in zip(IDS, shares.tolist(), strict=True)]
    table.write_text("\n".join(["id,cat,dog,fish", *lines]))
    split = split_of(FORMS["bytes"])
    for config in (OutputsConfig(file=table), write(logits=shares.numpy())):
        found = met(config, split)(split.batch(torch.arange(6)).inputs)
        assert torch.allclose(found.softmax(1), shares, atol=1e-6)
        assert torch.allclose(found, shares.log(), atol=1e-5)


def test_a_runs_copy_needs_no_file(write, tmp_path):
    config, split = write(), split_of(FORMS["bytes"])
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights_bytes(met(config, split)))
    config.file.unlink()
    again = load_teacher(config, TASK, copy)
    make_teacher(config).meet(again, [split])
    assert torch.equal(again(split.batch(torch.arange(6)).inputs), torch.from_numpy(LOGITS))


def test_examples_without_a_row_and_strange_inputs_are_told(write):
    with pytest.raises(CheckpointError, match=r"no row for 1 of the 6 examples of train, such as 'new.png'.*--ids"):
        met(write(), split_of(FORMS["bytes"], np.array([*IDS[:5], "new.png"])))
    network = met(write(), split_of(FORMS["bytes"]))
    with pytest.raises(CheckpointError, match="the data's own examples alone"):
        network(torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"ids": IDS[[0, 1, 2, 3, 4, 0]]}, "two rows with the id 'pets/0.png'"),
        ({"logits": LOGITS[:5]}, r"shape \[5, 3\] of float32; numbers of \[6, width\]"),
        (
            {"logits": np.where(np.arange(18).reshape(6, 3) == 7, np.nan, LOGITS)},
            "answers of 'pets/2.png' are no finite",
        ),
        ({"embedding": np.full((6, 2), "a")}, "its embedding have the shape"),
        ({"logits": LOGITS[:, :2]}, "3"),
        ({"ids": np.array([None] * 6, dtype=object)}, "pickle|object"),
    ],
)
def test_a_faulty_file_is_told(write, arrays, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        build_teacher(write(**arrays), TASK)


def test_a_file_that_is_no_archive_is_told(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"a.npz is truncated or no .npz"):
        build_teacher(OutputsConfig(file=tmp_path / "a.npz"), TASK)
    (tmp_path / "a.csv").write_text("id,cat,dog,fish\npets/0.png,1,2\n")
    with pytest.raises(CheckpointError, match="line 2: 3 cells for 4 columns"):
        build_teacher(OutputsConfig(file=tmp_path / "a.csv"), TASK)
    (tmp_path / "a.csv").write_text("id,cat,dog,fish\npets/0.png,1,2,x\n")
    with pytest.raises(CheckpointError, match="line 2: could not convert"):
        build_teacher(OutputsConfig(file=tmp_path / "a.csv"), TASK)
