"""`edgestill report`: a finished run's page once more, with latencies that devices measured meanwhile."""

import re
from collections.abc import Sequence
from pathlib import Path

from export.profile_document import ProfileDocument, read_profile
from flows.delivery import BUNDLE, ReportResult
from flows.report import render_report
from flows.results import report_data
from pipeline.errors import DataError
from pipeline.frozen import digest
from pipeline.rundir import RunDir

DEVICES = "devices"  # the folder of a run that holds their profiles


def report_again(run: RunDir, profiles: Sequence[Path] = ()) -> Path:
    """Keep the profiles in the run and write its page; gives the page. Nothing is measured, the test split stays shut.

    The page is made from what the manifest lists, and is not itself listed there.

    Raises:
        DataError: a profile cannot be read, or measured no file of this run.
        RunDirError: the run is not finished, or was altered.
    """
    tested = run.read("report", ReportResult, movable=BUNDLE)
    found = [(path, read_profile(path)) for path in profiles]
    made = {known for record in run.manifest.stages.values() for known in record.files.values()}
    strangers = [path for path, profile in found if not made & {model.sha256 for model in profile.models.values()}]
    if strangers:
        raise DataError("\n".join(f"{path} measured no file of {run.root}" for path in strangers))
    for _, profile in found:
        run.write(DEVICES, f"{_name(profile)}.json", profile.model_dump_json(by_alias=True) + "\n")
    run.add("report", DEVICES)
    kept = tuple(read_profile(path) for path in sorted((run.root / DEVICES).glob("*.json")))
    return run.write("", tested.report, render_report(report_data(run, tested, kept)))


def _name(profile: ProfileDocument) -> str:
    """`raspberry-pi-4-1a2b3c`: of the device, and of what was measured."""
    title = re.sub(r"[^a-z0-9]+", "-", profile.title.lower()).strip("-")[:40]
    return f"{title or 'device'}-{digest(profile)[:6]}"
