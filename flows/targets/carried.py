"""A target whose files and profile a person carries: a folder for the files, in which the profile is found later."""

import shlex
from pathlib import Path

from edgestill.export.bundle.scripts.join import PROFILE
from edgestill.export.device.document import ProfileDocument, read_profile
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import PROFILED, Job, require_of
from edgestill.export.targets.places import place_of
from edgestill.pipeline.errors import DataError, TargetError
from edgestill.pipeline.runs.checkpoint import write_atomic


def carried(target: TargetConfig, job: Job) -> ProfileDocument:
    """Return the profile that a person brought back; before that, lay the files out and say what to do.

    Raises:
        TargetError: there is no profile yet, or it is of other files.
    """
    folder = place_of_carried(target) / f"{target.name}-{job.key[:12]}"
    profile = folder / PROFILED
    if profile.is_file():
        try:
            return require_of(read_profile(profile), job)
        except (TargetError, DataError) as error:
            raise TargetError(f"{target.name}: {profile}: {error}; measure again with {folder}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in job.files.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise TargetError(f"{target.name}: {folder} cannot be written: {error.strerror}") from None
    again = shlex.join(["python", PROFILE, *job.arguments])
    raise TargetError(
        f"{target.name}: carry {folder} to the device, run `{again}` in it, bring {PROFILED} back into that folder, "
        "then give the same command (of a run, `edgestill resume`)"
    )


def place_of_carried(target: TargetConfig) -> Path:
    """Return the folder of a carried target."""
    return Path(place_of(target.where).path).expanduser().absolute()
