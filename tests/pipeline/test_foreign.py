"""Files from anywhere are read within bounds, or refused in a sentence of the reader's own kind."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
import torch

from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.datasets.npz import load_npz
from edgestill.pipeline.data.tokens import TokenizerConfig, make_coder
from edgestill.pipeline.errors import CheckpointError, ConfigError, DataError
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES, read_bounded, read_json_bounded, read_text_bounded
from edgestill.pipeline.free_memory import require_memory
from edgestill.pipeline.runs.checkpoint import read_metadata, read_weights
from edgestill.pipeline.runs.yaml_bounds import require_bounded_yaml


def test_a_file_of_the_limit_is_read_and_one_byte_more_is_not(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bounded(tmp_path / "a", 3) == b"abc"
    with pytest.raises(DataError, match=r"a has 3 bytes; at most 2 are read$"):
        read_bounded(tmp_path / "a", 2)


@pytest.mark.parametrize("name", ["pipe", "folder", "missing", "zero", "sparse", "nul\0"])
def test_what_is_no_plain_file_of_its_size_is_refused_without_waiting(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_WRONLY), 10**12)
    with pytest.raises(CheckpointError, match=r"is not a plain file|cannot be read|at most 10 are read"):
        read_bounded(tmp_path / name, 10, CheckpointError)


def test_text_that_is_not_utf_8_is_refused_and_a_mark_is_dropped(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa")
    assert read_text_bounded(tmp_path / "a", 10) == "a"
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="byte 2 is not UTF-8"):
        read_text_bounded(tmp_path / "a", 10)


def test_json_of_millions_of_values_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + b"0," * 600_000 + b"0]")
    with pytest.raises(DataError, match="more than 524,288 values"):
        read_json_bounded(tmp_path / "a.json")


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n" for before, after in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "stands for more than 100,000 values"),
        ("a: &a [*a]", "stands for more than 100,000 values"),
        ("[" * 100 + "]" * 100, "nests deeper than 50"),
        ("[" * 100_000, "nests deeper than 50"),
        ("{a: " * 60 + "}" * 60, "nests deeper than 50"),
        ("a: " + "x" * MAX_CONFIG_BYTES, "has 262,147 characters"),
    ],
)
def test_yaml_that_stands_for_more_than_it_has_is_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        require_bounded_yaml(text, "run.yaml")


def test_yaml_with_a_few_aliases_and_what_is_no_yaml_are_left_to_the_reader():
    require_bounded_yaml("a: &a {x: 1}\nb: {<<: *a}\nc: [*a, *a]\n", "run.yaml")
    require_bounded_yaml("a: [", "run.yaml")


def arrays(count=60):
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    return {"x_train": images, "y_train": np.arange(count) % 3, "x_test": images, "y_test": np.arange(count) % 3}


def npz_with(path, method=zipfile.ZIP_STORED, **changed):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays().items():
            packed = io.BytesIO()
            np.save(packed, array)
            archive.writestr(f"{name}.npy", changed.get(name, packed.getvalue()))


def header(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (header("(100000, 40, 40, 50)"), "the header of x_train declares 8,000,000,0.. bytes and the archive"),
        (header((2**40, 2**40)), "the header of x_train declares"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 300) + b"(" * 300, "not an .npz file"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 8999 + b"1", "not an .npz file"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 11) + b"{'descr': (", "not an .npz file"),
        (b"no array", "not an .npz file"),
        (header("(1,)", "|O"), "arrays of numbers and of text .* alone are read here"),
    ],
)
def test_an_npz_whose_arrays_declare_what_they_have_not_is_refused(member, reason, tmp_path):
    npz_with(tmp_path / "a.npz", x_train=member)
    with pytest.raises(DataError, match=reason):
        load_npz(NpzConfig(path=tmp_path / "a.npz"))


def test_an_npz_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    npz_with(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, x_train=header((3 * 10**8,)) + bytes(3 * 10**8))
    with pytest.raises(DataError, match="times as many, which no images do"):
        load_npz(NpzConfig(path=tmp_path / "a.npz"))


def test_what_needs_more_memory_than_is_free_says_both_numbers():
    require_memory(1000, "it")
    with pytest.raises(DataError, match=r"^it needs 1,000,000\.0 GB of memory, and [\d.,]+ GB is free here"):
        require_memory(10**15, "it")


def test_a_torch_checkpoint_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as whole,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert set(read_weights(tmp_path / "a.pth")) == {"a"}
    with pytest.raises(CheckpointError, match=r"says that it unpacks to 4,00\d,\d\d\d"):
        read_weights(tmp_path / "b.pth")


@pytest.mark.parametrize("head", [b"[" * 10**5, b"[]", b'{"__metadata__": {"edgestill": "[[["}}', b"\xff"])
def test_metadata_of_a_hostile_header_is_none(head, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    assert read_metadata(tmp_path / "a.safetensors") == {}


@pytest.mark.parametrize("token", [10**8, 10**6])
def test_token_ids_far_above_the_number_of_tokens_are_refused(token, tmp_path):
    """A network has a row of weights for each id: 10^8 of them take 51 GB."""
    content = json.loads(make_coder(["a film"], TokenizerConfig(), 9).json)
    content["model"]["vocab"]["evil"] = token
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"gives {token + 1:,} ids to \d+ tokens"):
        make_coder(["a film"], TokenizerConfig(file=tmp_path / "tokenizer.json"), 9)
