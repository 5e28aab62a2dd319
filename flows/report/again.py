"""`edgestill report`: write a finished run's page once more, with latencies measured on devices since."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from edgestill.export.device.document import ProfileDocument, read_profile
from edgestill.export.result import ProfileResult
from edgestill.flows.config import config_of
from edgestill.flows.report.data import ReportData
from edgestill.flows.report.device import render_profile
from edgestill.flows.report.write import render_report
from edgestill.flows.stages.results import PAGE, ReportResult, Results
from edgestill.flows.targets.profiling import PROFILES
from edgestill.pipeline.errors import DataError, RunDirError, first_line
from edgestill.pipeline.foreign import MAX_JSON_BYTES, read_bounded
from edgestill.pipeline.frozen import digest, first_problem
from edgestill.pipeline.runs.rundir import RunDir

DEVICES = "devices"  # a run's folder for the devices' profiles
_Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_SAMPLES = TypeAdapter(dict[str, Annotated[list[_Milliseconds], Field(min_length=1)]])


def report_again(
    run: RunDir, results: Results, profiles: Sequence[Path] = (), cautions: list[str] | None = None
) -> Path:
    """Keep the profiles in the run, write its page and return the page's path.

    Nothing is measured, the test split stays shut. The page is made from files listed in the manifest, and is not
    listed itself. A profile kept earlier that cannot be shown is a caution on the page.

    Args:
        results: of all the run's stages.
        cautions: gets a sentence for each such profile and for each chart not drawn.

    Raises:
        DataError: a profile cannot be read or shown, or measured no file of this run; nothing is kept then.
        RunDirError: a file of the run was altered.
    """
    found = [(path, _showable(path)) for path in profiles]
    made = {known for record in run.manifest.stages.values() for known in record.files.values()}
    strangers = [path for path, profile in found if not made & {model.sha256 for model in profile.models.values()}]
    if strangers:
        raise DataError(*(f"{path} measured no file of {run.root}" for path in strangers))
    for _, profile in found:
        run.write(DEVICES, f"{_name(profile)}.json", profile.model_dump_json(by_alias=True) + "\n")
    run.add("report", DEVICES)
    kept, left_out = kept_profiles(run)
    undrawn: list[str] = []
    profiled = results.of(ProfileResult)
    theirs = {} if profiled.teacher is None else {"teacher": "teacher"}
    report = ReportData(
        config=results.settled(config_of(run)),
        manifest=run.manifest,
        results=results,
        bundle=Path(run.root.resolve().name) / results.of(ReportResult).bundle,
        samples_ms=samples_of(run, {**theirs, "student": profiled.default}),
        devices=kept,
        cautions=(*run.cautions, *left_out),
    )
    page = run.write("", PAGE, render_report(report, undrawn))
    if cautions is not None:
        cautions += [*left_out, *undrawn]
    return page


def kept_profiles(run: RunDir) -> tuple[tuple[ProfileDocument, ...], tuple[str, ...]]:
    """Read a run's profiles, of its targets and of other devices.

    Returns:
        Those fit to be shown, and for each other one a sentence why not.
    """
    kept, cautions = [], []
    for path in (*sorted((run.root / "profile").glob(PROFILES)), *sorted((run.root / DEVICES).glob("*.json"))):
        try:
            kept.append(_showable(path))
        except DataError as error:
            cautions.append(f"{error}; the page is without it")
    return tuple(kept), tuple(cautions)


def _showable(path: Path) -> ProfileDocument:
    """Read a profile and try to render it: a kept profile must not stop every later page."""
    profile = read_profile(path)
    try:
        render_profile(profile)
    except Exception as error:  # numbers allowed one by one may give no chart together
        raise DataError(f"{path} cannot be shown ({type(error).__name__}: {first_line(error)[:200]})") from None
    return profile


def _name(profile: ProfileDocument) -> str:
    """Name for a kept profile, from its title and its digest, such as `raspberry-pi-4-1a2b3c`."""
    title = re.sub(r"[^a-z0-9]+", "-", profile.title.lower()).strip("-")[:40]
    return f"{title or 'device'}-{digest(profile)[:6]}"


def samples_of(run: RunDir, files: Mapping[str, str]) -> dict[str, list[float]]:
    """Read the latency samples in ms of some files, by another name for each.

    Raises:
        RunDirError: the file of samples is damaged.
    """
    path = run.path("profile", "samples_ms.json")
    try:
        samples = _SAMPLES.validate_json(read_bounded(path, MAX_JSON_BYTES, RunDirError))
        return {name: samples[file] for name, file in files.items()}
    except (ValidationError, KeyError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else f"it has no samples of {error}"
        raise RunDirError(f"{path} is damaged ({why}); put it back, or start a new run") from None
