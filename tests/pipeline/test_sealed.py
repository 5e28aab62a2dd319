"""What a later process goes on from is its own and whole, or refused by name."""

import json

import pytest

from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.runs.sealed import Journal, read_sealed, write_sealed


def test_sealed_data_comes_back_to_its_owner_alone(tmp_path):
    path = tmp_path / "state"
    assert read_sealed(path, "me") is None
    for data in (b"", b"a\nb\n", bytes(range(256))):
        write_sealed(path, data, "me")
        assert read_sealed(path, "me") == data
        with pytest.raises(RunDirError, match=r"state belongs to another run, .* or delete it: `edgestill resume`"):
            read_sealed(path, "you")


def test_every_damage_to_sealed_data_is_noticed(tmp_path):
    path = tmp_path / "state"
    write_sealed(path, b"weights", "me")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:30], b"weights", whole + b"x", whole.replace(b"gh", b"hg"), b"\0" * 99):
        path.write_bytes(damaged)
        with pytest.raises(RunDirError, match=r"state is damaged, or another version wrote it; delete it"):
            read_sealed(path, "me")


def test_a_folder_in_the_place_of_a_file_is_named_with_the_way_out(tmp_path):
    for open_it in (read_sealed, Journal):
        with pytest.raises(RunDirError, match=r"cannot be read \(Is a directory\); mend that, or move it away"):
            open_it(tmp_path, "me")


ENTRIES = [{"scores": {"nwot": 0.1 + 0.2}, "pair": [1, 2]}, {"failure": "größer"}, {"nan": float("inf")}]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "history.jsonl", "me")
    for entry in ENTRIES:
        journal.append(entry)
    return tmp_path / "history.jsonl"


def test_a_durable_entry_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr("edgestill.pipeline.runs.sealed.os.fsync", lambda number: synced.append(path.read_text()))
    Journal(path, "me").append({"label": 3}, durable=True)
    assert [json.loads(text.splitlines()[-1])["label"] for text in synced] == [3]


def test_a_journal_is_refused_by_another_owner_with_its_line(path):
    assert Journal(path, "me").entries == ENTRIES
    with pytest.raises(RunDirError, match=r"^line 1 of .*history.jsonl belongs to another run, or to other data"):
        Journal(path, "you")
    Journal(path.with_name("other"), "you").append({"a": 1})
    path.write_bytes(path.read_bytes() + path.with_name("other").read_bytes())
    with pytest.raises(RunDirError, match=r"^line 4 of "):
        Journal(path, "me")


@pytest.mark.parametrize("line", ["{", "1", "[]", "{}", "null", '"x"', "\0\0", '{"scores": 1}', "[" * 5000])
def test_a_damaged_line_in_the_middle_is_told_and_the_lines_behind_it_are_kept(path, line):
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]) + "\n")
    before = path.read_bytes()
    with pytest.raises(RunDirError, match=r"^line 2 of .*history.jsonl is damaged"):
        Journal(path, "me")
    assert path.read_bytes() == before


def test_a_figure_that_changed_on_the_disk_is_noticed(path):
    first, *rest = path.read_text().splitlines()
    entry = json.loads(first)
    entry["scores"]["nwot"] = 0.9
    path.write_text("\n".join([json.dumps(entry), *rest]) + "\n")
    with pytest.raises(RunDirError, match=r"^line 1 of .* was altered"):
        Journal(path, "me")
