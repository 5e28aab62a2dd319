"""The machine's faults are told as the machine's, with the path and the way out."""

import errno
import os

import pytest

from edgestill.flows.cli.failures import sentence_of
from edgestill.pipeline.environment import environments_fault
from edgestill.pipeline.runs.checkpoint import write_atomic


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full (a.pt); free some space, then resume"),
        (errno.EDQUOT, "your share of the disk is used up (a.pt); free"),
        (errno.EROFS, "the file system is read-only (a.pt); mount it"),
        (errno.EMFILE, "this process may open no more files (a.pt); raise the limit (`ulimit -n 4096`)"),
        (errno.ENFILE, "the system can open no more files (a.pt)"),
        (errno.EIO, "the disk failed (a.pt)"),
        (errno.ENOMEM, "there is too little memory (a.pt)"),
    ],
)
def test_a_fault_of_the_machine_is_told_with_its_path_and_the_way_out(number: int, said: str) -> None:
    assert sentence_of(OSError(number, os.strerror(number), "a.pt")).startswith(said)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB"),
     RuntimeError("CUDA out of memory. Tried to allocate")],
    ids=["python", "cpu", "gpu"],
)  # fmt: skip
def test_too_little_memory_is_no_mistake_of_ours(error: Exception) -> None:
    assert sentence_of(error).startswith("there is too little memory")


def test_what_is_a_mistake_stays_one() -> None:
    assert environments_fault(RuntimeError("shape mismatch")) is None
    assert environments_fault(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert "this is our mistake" in sentence_of(RuntimeError("shape mismatch"))


def test_a_write_that_fails_says_which_file_it_was(tmp_path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edgestill.pipeline.runs.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(tmp_path / "weights", b"data")
    assert sentence_of(caught.value).startswith(f"the disk is full ({tmp_path}/weights)")
    assert list(tmp_path.iterdir()) == []


def test_a_sentence_on_a_path_is_short_however_long_the_path() -> None:
    said = sentence_of(OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "/runs/" + "x" * 5000))
    assert said.startswith("File name too long (/runs/xxx")
    assert len(said) < 200
