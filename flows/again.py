"""`edgestill report`: a finished run's page once more, with latencies that devices measured meanwhile."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from distill.result import DistillResult, TuneResult
from export.profile_document import ProfileDocument, read_profile
from export.result import ConvertResult, ProfileResult
from flows.config import RunConfig
from flows.delivery import ReportResult
from flows.rank_check import RankCheckResult
from flows.report import ReportData, render_report
from flows.stages import DataResult
from pipeline.errors import DataError
from pipeline.frozen import digest
from pipeline.rundir import RunDir
from pipeline.teacher import TeacherResult
from search.result import SearchResult
from search.tournament import TournamentResult

DEVICES = "devices"  # the folder of a run that holds their profiles


def report_again(run: RunDir, profiles: Sequence[Path]) -> Path:
    """Keep the profiles in the run and write its page; gives the page. Nothing is measured, the test split stays shut.

    Raises:
        DataError: a profile cannot be read, or measured no file of this run.
        RunDirError: the run is not finished, or was altered.
    """
    tested = run.read("report", ReportResult)
    found = [(path, read_profile(path)) for path in profiles]
    made = {known for record in run.manifest.stages.values() for known in record.files.values()}
    strangers = [path for path, profile in found if not made & {model.sha256 for model in profile.models.values()}]
    if strangers:
        raise DataError("\n".join(f"{path} measured no file of {run.root}" for path in strangers))
    for _, profile in found:
        run.write(DEVICES, f"{_name(profile)}.json", profile.model_dump_json(by_alias=True) + "\n")
    kept = tuple(read_profile(path) for path in sorted((run.root / DEVICES).glob("*.json")))
    page = run.write("", tested.report, render_report(_data(run, tested, kept)))
    record = run.manifest.stages["report"]
    run.finish("report", tested, record.inputs, record.seconds, (tested.bundle, tested.report, DEVICES))
    return page


def _name(profile: ProfileDocument) -> str:
    """`raspberry-pi-4-1a2b3c`: of the device, and of what was measured."""
    title = re.sub(r"[^a-z0-9]+", "-", profile.title.lower()).strip("-")[:40]
    return f"{title or 'device'}-{digest(profile)[:6]}"


def _data(run: RunDir, tested: ReportResult, devices: tuple[ProfileDocument, ...]) -> ReportData:
    ranked = "rank_check" in run.manifest.stages
    return ReportData(
        config=run.config(RunConfig),
        manifest=run.manifest,
        data=run.read("data", DataResult),
        teacher=run.read("teacher", TeacherResult),
        ranked=run.read("rank_check", RankCheckResult) if ranked else None,
        found=run.read("search", SearchResult),
        played=run.read("tournament", TournamentResult),
        tuned=run.read("tune", TuneResult),
        distilled=run.read("distill", DistillResult),
        converted=run.read("export", ConvertResult),
        profiled=run.read("profile", ProfileResult),
        samples_ms=json.loads(run.path("profile", "samples_ms.json").read_text(encoding="utf-8")),
        tested=tested,
        devices=devices,
    )
