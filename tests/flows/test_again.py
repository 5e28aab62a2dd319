"""A finished run whose page or bundle is gone: it is shown, and the page written again."""

import json
import shutil
from pathlib import Path

import pytest

from flows.again import report_again
from flows.chain import run_chain
from flows.show import show_run, show_runs
from pipeline.errors import RunDirError
from pipeline.rundir import RunDir, file_digest
from search.result import SearchResult
from search.tournament import TournamentResult


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / finished_run.name))


@pytest.mark.parametrize("left", [None, "half a pa"])
def test_a_page_that_is_gone_or_cut_short_is_written_again(run: Path, left: str | None) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert "(missing; `edgestill report" in show_run(RunDir.view(run))
    if left is not None:
        (run / "report.html").write_text(left)
    with RunDir.open(run) as directory:
        report_again(directory)
    assert (run / "report.html").read_text(encoding="utf-8") == page


def test_a_resumed_run_whose_page_is_gone_has_it_again(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    with RunDir.open(run) as directory:
        run_chain(directory)
    assert (run / "report.html").read_text(encoding="utf-8") == page


def test_a_run_whose_bundle_was_moved_away_is_shown_and_says_so(run: Path, tmp_path: Path) -> None:
    before = show_runs(run.parent)
    assert "moved away" not in show_run(RunDir.view(run))
    (run / "bundle").rename(run.parent / "shipped")
    assert f"{run / 'bundle'}  (moved away)" in show_run(RunDir.view(run))
    assert show_runs(run.parent) == before
    with RunDir.open(run) as directory:
        report_again(directory)
        with pytest.raises(RunDirError, match=r"bundle/\S+ is missing since the report stage wrote it"):
            run_chain(directory)


@pytest.mark.parametrize(
    ("stage", "key", "use"),
    [
        ("report", "report", lambda directory: report_again(directory)),
        ("report", "bundle", lambda directory: show_run(directory)),
        ("export", "student.path", lambda directory: run_chain(directory)),
    ],
)
def test_a_run_from_elsewhere_does_not_choose_what_is_read_or_written(
    run: Path, tmp_path: Path, stage, key, use
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = run / stage / "result.json"
    result = json.loads(path.read_text())
    *outer, last = key.split(".")
    place = result[outer[0]] if outer else result
    place[last] = str(victim)
    path.write_text(json.dumps(result))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"][stage]["files"][f"{stage}/result.json"] = file_digest(path)
    (run / "manifest.json").write_text(json.dumps(manifest))
    with RunDir.open(run) as directory, pytest.raises(RunDirError, match=rf"result.json is not what .* \({key}: "):
        use(directory)
    assert victim.read_text() == "mine"


def test_a_folder_of_runs_with_a_torn_manifest_is_listed(run: Path) -> None:
    (run / "manifest.json").write_text('{"schema"')
    shown = show_runs(run.parent)
    assert run.name in shown
    assert "damaged" in shown


def test_a_long_architecture_is_cut_and_the_name_of_its_run_is_not(run: Path) -> None:
    long = run.rename(run.parent / f"20260101_000000_{'n' * 41}_abcdef")
    with RunDir.open(long) as directory:
        for stage, kind in (("search", SearchResult), ("tournament", TournamentResult)):
            result, record = directory.read(stage, kind), directory.manifest.stages[stage]
            winner = result.winner.model_copy(update={"architecture": "|nor_conv_3x3~0|+" * 9})
            directory.finish(stage, result.model_copy(update={"winner": winner}), record.inputs, record.seconds)
    (row,) = [line for line in show_runs(long.parent).splitlines() if "|nor_conv" in line]
    assert long.name in row
    assert "…" in row
    assert row.rstrip().endswith("%")
