"""Progress of a flow run: lines inside long stages, and an artifact that a server's absence does not delay."""

import time
from pathlib import Path
from typing import Any

import pytest

from edgestill.flows.outcome import Part
from edgestill.flows.prefect import artifacts
from edgestill.flows.prefect.artifacts import Shown, keep_artifacts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_TOLD_S", 0.02), ("_LINE_S", 0.0), ("_SILENT_S", 0.1)):
        monkeypatch.setattr(artifacts, name, seconds)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch, quick: None) -> list[tuple[float, str]]:
    found: list[tuple[float, str]] = []

    def create(share: float, key: str, said: str) -> int:
        found.append((share, said))
        return 1

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda key, share, said: found.append((share, said)))
    return found


def test_a_stage_that_says_nothing_is_told_to_be_at_work(updates: list[Any]) -> None:
    lines: list[str] = []
    shown = Shown(lines.append)
    shown.begin("search", 3, 4)
    time.sleep(0.4)
    shown.close()
    assert any(line.startswith("[3 of 4: search] at work for") for line in lines)


def test_the_artifact_follows_the_stages(updates: list[tuple[float, str]]) -> None:
    shown = Shown(lambda line: None)
    shown.begin("search", 3, 4)
    time.sleep(0.1)
    shown.tick(5, 10, "candidates")
    time.sleep(0.1)
    shown.close()
    assert updates == [(50.0, "stage 3 of 4: search"), (62.5, "stage 3 of 4: search, 5 of 10 candidates")]


def test_a_server_that_is_away_delays_no_work(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    def away(*given: Any) -> None:
        time.sleep(5)
        raise ConnectionError

    monkeypatch.setattr(artifacts, "create_progress_artifact", away)
    shown = Shown(lambda line: None)
    began = time.monotonic()
    shown.begin("search", 1, 1)
    for done in range(100):
        shown.tick(done, 100, "")
    shown.end("search", 1.0, "found", False)
    shown.close()
    assert time.monotonic() - began < 1


def test_the_artifact_of_a_part_names_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, *given: made.append(text))
    keep_artifacts(Part(run=tmp_path / "night", stage="search", sentences=("search: found",), cautions=("a caution",)))
    assert str(tmp_path) not in made[0]
    assert "search: found" in made[0]
    assert "a caution" in made[0]
    assert "`edgestill show night`" in made[0]
