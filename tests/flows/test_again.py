"""A finished run whose page or bundle is gone: it is shown, and the page written again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgestill.export.bundle import write as bundle
from edgestill.export.bundle.verify import verify
from edgestill.flows.chain import results_of
from edgestill.flows.config import RunConfig
from edgestill.flows.progress import Silent
from edgestill.flows.report import again
from edgestill.flows.report.again import report_again
from edgestill.flows.report.drawing import charts
from edgestill.flows.runner import run_chain
from edgestill.flows.show import show_run, show_runs, summary
from edgestill.pipeline.errors import DataError, RunDirError
from edgestill.pipeline.runs.rundir import RunDir, file_digest
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult

pytestmark = pytest.mark.engines


def written_again(run: RunDir, *given: Any, **more: Any) -> Path:
    return report_again(run, results_of(run, run.config(RunConfig)), *given, **more)


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
        written_again(directory)
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
        written_again(directory)
        with pytest.raises(RunDirError, match=r"bundle/\S+ is missing since the report stage wrote it"):
            run_chain(directory)


@pytest.mark.parametrize(
    ("stage", "key", "use"),
    [
        ("report", "report", lambda directory: written_again(directory)),
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


def test_niceties_that_fail_are_cautions_and_the_run_is_whole(run: Path, monkeypatch) -> None:
    """A bill of materials, a card, a chart and the display: each planted to fail, in a run that redoes its report."""

    def fail(*arguments, **options):
        raise UnicodeError("a package's \x1b METADATA")

    class Gone(Silent):
        end = fail

    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    del manifest["stages"]["report"]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for module, name in ((bundle, "sbom_bytes"), (bundle, "model_card"), (charts, "draw")):
        monkeypatch.setattr(module, name, fail)
    with RunDir.open(run) as directory:
        outcome = run_chain(directory, Gone())
    said = "\n".join(outcome.cautions)
    for name in ("sbom.cdx.json was not", "MODEL_CARD.md was not", "the chart latency histogram", "progress could not"):
        assert name in said
    assert said.replace("\n", "").isprintable()
    assert "caution: sbom.cdx.json was not written" in summary(outcome)
    assert "caution: MODEL_CARD.md was not written" in show_run(RunDir.view(run))
    verdict = verify(run / "bundle")
    assert verdict.problems == ()
    assert not (run / "bundle" / "sbom.cdx.json").exists()
    card = json.loads((run / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert [caution.split(" ")[0] for caution in card["cautions"]] == ["sbom.cdx.json", "MODEL_CARD.md"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Sbom.cdx.json was not written" in page
    assert "The chart latency histogram could not be drawn" in page


def test_a_page_that_cannot_be_written_is_a_caution_and_is_tried_again(run: Path, monkeypatch) -> None:
    (run / "report.html").unlink()

    def fail(*arguments):
        raise TypeError("no page")

    monkeypatch.setattr(again, "render_report", fail)
    with RunDir.open(run) as directory:
        outcome = run_chain(directory)
    assert outcome.cautions == ("report.html was not written (TypeError: no page)",)
    assert "(missing; `edgestill report" in summary(outcome)


def test_a_profile_that_the_run_holds_and_that_cannot_be_read_is_a_caution(run: Path) -> None:
    """A version before this one kept it first and rendered it later."""
    with RunDir.open(run) as directory:
        directory.write("devices", "pi-1a2b3c.json", '{"method": {"turn": "x"}}')
        directory.add("report", "devices")
        cautions: list[str] = []
        written_again(directory, cautions=cautions)
    assert "pi-1a2b3c.json is no profile" in cautions[0]
    assert "pi-1a2b3c.json is no profile" in (run / "report.html").read_text(encoding="utf-8")
    assert "caution: " in show_run(RunDir.view(run))


def test_a_profile_that_cannot_be_shown_is_refused_and_nothing_is_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"method": {"turn": "x"}}', encoding="utf-8")
    before = (run / "manifest.json").read_bytes()
    with RunDir.open(run) as directory, pytest.raises(DataError, match=r"p\.json is no profile"):
        written_again(directory, [tmp_path / "p.json"])
    assert not (run / "devices").exists()
    assert (run / "manifest.json").read_bytes() == before


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
