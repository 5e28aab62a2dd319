"""`edgestill doctor` on cores, pinned versions, databases and the clock."""

import json
import sqlite3
from pathlib import Path

import pytest

from edgestill.flows.cli.main import execute
from edgestill.flows.plan import doctor, surroundings
from edgestill.flows.plan.finding import Check


def test_a_containers_limit_of_cores_is_read_in_both_forms(tmp_path: Path) -> None:
    second, first = tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us"
    assert surroundings.core_limit((second, first)) is None
    first.write_text("150000\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert surroundings.core_limit((second, first)) == 1.5
    second.write_text("max 100000\n")
    assert surroundings.core_limit((second, first)) is None
    second.write_text("200000 100000\n")
    assert surroundings.core_limit((second, first)) == 2


def test_more_threads_than_cores_are_told_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "core_limit", lambda: 2.0)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    (check,) = surroundings.cores()
    assert check.state == "note"
    assert "device.threads=" in check.fix


def test_a_locked_database_is_told_and_a_free_one_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert [check.state for check in surroundings.databases(tmp_path / "runs")] == ["ok"]
    held = sqlite3.connect(tmp_path / "prefect.db", isolation_level=None)
    held.execute("CREATE TABLE runs (id)")
    assert [check.state for check in surroundings.databases(tmp_path / "runs")] == ["ok"]
    held.execute("BEGIN EXCLUSIVE")
    (check,) = surroundings.databases(tmp_path / "runs")
    held.close()
    assert "locked" in check.found
    assert check.fix


def test_a_file_system_whose_clock_is_an_hour_off_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [check.state for check in surroundings.clock(tmp_path)] == ["ok"]
    monkeypatch.setattr(surroundings, "_of_files", lambda runs: ("the file system", 3600.0))
    (check,) = surroundings.clock(tmp_path)
    assert check.found == "the file system is 3600 s ahead"


def test_the_findings_are_json_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda runs: iter([Check("clock", "wrong", "set it", True)]))
    assert execute(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"state": "fault", "name": "clock", "found": "wrong", "fix": "set it"}
    ]
