"""`edgestill list` and `edgestill doctor`: one line each, with the fix where something is missing."""

import sys
from pathlib import Path

import pytest

from edgestill.flows.cli.main import execute
from edgestill.flows.plan import doctor, listing
from edgestill.flows.plan.doctor import Check, examine
from edgestill.flows.plan.listing import _TABLES, listed
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.plugins import Table


@pytest.mark.parametrize("word", _TABLES)
def test_each_name_of_a_table_has_one_line_that_says_what_it_is(word: str) -> None:
    lines = listed(word).splitlines()
    assert [line.split()[0] for line in lines] == list(_TABLES[word][0])
    for line in lines:
        words = line.split(maxsplit=1)[1]
        assert len(words) > 10
        assert "Immutable and strict" not in words


def test_the_tables_are_listed_with_the_key_that_takes_their_names() -> None:
    assert "distill.methods: kd, kd_aif" in listed(None)
    assert listed("spaces") == listed("students")
    with pytest.raises(ConfigError, match="did you mean 'teachers'"):
        listed("teacher")


def test_a_line_of_another_package_is_marked_with_it(monkeypatch) -> None:
    monkeypatch.setattr(Table, "package", lambda table, name: "theirs" if name == "kd" else None)
    marked = [line for line in listing.listed("methods").splitlines() if line.endswith("(of the package theirs)")]
    assert [line.split()[0] for line in marked] == ["kd"]


def test_a_sound_installation_has_no_fault_and_exit_code_0(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))
    assert execute(["doctor", "--out", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out
    assert "fault" not in told
    for name in ("python", "torch", "formats", "memory", "runs", "cache", "gpu", "extra", "prefect", "terminal"):
        assert f" {name} " in told, name
    assert not (tmp_path / "runs").exists()


def test_a_broken_library_and_an_unwritable_folder_are_faults_with_a_fix(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy>=99", 'nothing-like-it; extra == "x"'])
    found = list(examine(Path("/proc/nowhere")))
    faults = {check.name: check for check in found if check.is_fault}
    assert {"libraries", "torch", "runs"} <= faults.keys()
    assert faults["libraries"].fix == "pip install 'numpy>=99'"
    assert faults["runs"].fix == "name another with --out"
    assert Check("a", "b", "c").line == "note   a            b; c"
    monkeypatch.setattr(doctor, "examine", lambda runs: iter([Check("torch", "gone", "install it", True)]))
    assert execute(["doctor"]) == 1
    assert capsys.readouterr().out == "fault  torch        gone; install it\n"
