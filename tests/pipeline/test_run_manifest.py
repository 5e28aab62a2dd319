"""Runs from elsewhere: no name in them leads out, whatever is read or written."""

import json
import os
from pathlib import Path

import pytest

from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.rundir import RunDir


class Config(Frozen):
    seed: int = 0


class Result(Frozen):
    accuracy: float


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run with a finished stage, held by nobody."""
    with RunDir.create(tmp_path, "digits", 0, Config()) as run:
        run.journal("search", "history.jsonl").append({"score": 1})
        run.write("report", "result.json", "{}")
        run.finish("search", Result(accuracy=0.5), "inputs", 1.0)
    return run.root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("mine")
    return tmp_path / "outside"


LINKS = {
    "the lock": (".lock", "file"),
    "a lock of nothing": (".lock", "nothing"),
    "the manifest": ("manifest.json", "file"),
    "the configuration": ("config.yaml", "file"),
    "the page": ("report.html", "file"),
    "a stage": ("report", ""),
    "the bundle": ("bundle", ""),
    "a stage's file": ("search/history.jsonl", "file"),
    "a file that a stage goes on from": ("tune/study.db", "file"),
    "the folder of device profiles": ("devices", ""),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_a_run_is_refused_before_anything_is_opened(name, root, outside) -> None:
    inside, target = root / LINKS[name][0], outside / LINKS[name][1]
    inside.parent.mkdir(exist_ok=True)
    if inside.is_dir():
        inside.rename(root.parent / "moved")
    if inside.exists():
        target.write_bytes(inside.read_bytes())
        inside.unlink()
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    inside.symlink_to(target)
    for use in (RunDir.open, RunDir.view):
        with pytest.raises(RunDirError, match=r"is a link; a run holds its files themselves"):
            use(root)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_a_pipe_in_a_run_is_refused_and_not_waited_for(root) -> None:
    os.mkfifo(root / "search" / "pipe")
    (root / "config.yaml").unlink()
    os.mkfifo(root / "config.yaml")
    for use in (RunDir.open, RunDir.view):
        with pytest.raises(RunDirError, match="is no plain file"):
            use(root)


@pytest.mark.parametrize("name", [".lock", "search/history.jsonl"])
def test_a_second_name_of_a_file_outside_may_be_looked_at_and_not_be_written(name, root, outside) -> None:
    (root / name).unlink(missing_ok=True)
    os.link(outside / "file", root / name)
    with pytest.raises(RunDirError, match="is a hard link"):
        RunDir.open(root)
    assert (outside / "file").read_text() == "mine"
    assert RunDir.view(root).manifest.name == "digits"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside/file", "search/../../outside/file", "C:\\x", "\\\\host\\x"]
)
def test_a_manifest_names_files_of_its_run_alone(name, root, outside) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["stages"]["search"]["files"][name] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(manifest))
    for use in (RunDir.open, RunDir.view):
        with pytest.raises(RunDirError, match="leads out of the run"):
            use(root)


def test_a_manifest_names_no_file_that_no_file_system_takes(root) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["stages"]["search"]["files"]["x" * 2000] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunDirError, match="longer than the 255 bytes of a path in a run") as refused:
        RunDir.view(root)
    assert len(str(refused.value)) < 500


def test_a_result_of_another_form_is_told_in_a_sentence(root) -> None:
    class Other(Frozen):
        accuracy: str

    with pytest.raises(RunDirError, match=r"search/result.json is not what this edgestill writes \(accuracy: Input"):
        RunDir.view(root).read("search", Other)
