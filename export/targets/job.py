"""Material of a measurement on a device: the script that every bundle ships, a card of the models, and the models.

The same files go to a device by a connection, or into a folder that a person carries.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import NamedTuple

from edgestill.export.bundle.schema import BUNDLE, PROBES
from edgestill.export.bundle.scripts.join import PROFILE, profile_script
from edgestill.export.device.document import ProfileDocument
from edgestill.export.device.runtimes import RUNTIMES
from edgestill.pipeline.errors import TargetError
from edgestill.pipeline.frozen import digest

PROFILED = "profile.json"


class Sent(NamedTuple):
    """A model's files, and its facts for the profile."""

    data: bytes
    format: str
    precision: str
    suffix: str = ".onnx"
    beside: tuple[tuple[str, bytes], ...] = ()  # further files by suffix

    @property
    def runtime(self) -> str:
        return RUNTIMES[self.suffix]


class Timed(NamedTuple):
    """Settings of the script there."""

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    duration_s: float = 10.0  # of calls a model, all processes together
    repeats: int = 3
    length: int = 0  # of texts, in tokens; of pictures where any size goes in, the sides


class Job(NamedTuple):
    files: dict[str, bytes]  # by name
    models: dict[str, str]  # model's name -> its file's
    timed: Timed

    @property
    def key(self) -> str:
        """Name by content: the same measurement of the same files is found again after a broken link."""
        return digest({name: sha256(data) for name, data in self.files.items()}, self.timed._asdict())[:32]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def arguments(self) -> list[str]:
        timed = self.timed
        return [
            "--model", "all", "--batch", ",".join(map(str, timed.batches)),
            "--threads", ",".join(map(str, timed.threads)),
            "--duration", f"{timed.duration_s:g}", "--repeats", str(timed.repeats), "--out", PROFILED,
            *(["--length", str(timed.length)] if timed.length else []),
            *(["--other-runtimes"] if any(not file.endswith(".onnx") for file in self.models.values()) else []),
        ]  # fmt: skip

    @property
    def expected_s(self) -> float:
        """Estimate of the least seconds that the job takes: its calls, and its fresh processes on a fast machine."""
        return len(self.models) * len(self.timed.threads) * len(self.timed.batches) * self.timed.duration_s


def make_job(
    models: Mapping[str, Sent], timed: Timed, probes: bytes | None = None, architecture: str | None = None
) -> Job:
    """Return the job to measure models in turns.

    Args:
        probes: safetensors of probe inputs and INT8 logits, by which INT8 answers are compared there.
        architecture: SPACE:STUDENT, for the profile.
    """
    names = {name: f"{name}{sent.suffix}" for name, sent in models.items()}
    card = {
        "models": {
            name: {"file": names[name], "format": sent.format, "precision": sent.precision, "runtime": sent.runtime}
            for name, sent in models.items()
        },
        "default": next(iter(models)),
        "architecture": architecture,
    }
    files = {names[name]: sent.data for name, sent in models.items()}
    files |= {f"{name}{suffix}": data for name, sent in models.items() for suffix, data in sent.beside}
    files |= {PROFILE: profile_script().encode(), BUNDLE: json.dumps(card, indent=1).encode()}
    if probes is not None:
        files[PROBES] = probes
    return Job(files, names, timed)


def require_of(document: ProfileDocument, job: Job) -> ProfileDocument:
    """Check that a profile is of the job's own files and settings.

    Raises:
        TargetError: it is of others.
    """
    told, timed = document.method, job.timed
    if (told.duration_s, told.repeats) != (timed.duration_s, timed.repeats):
        raise TargetError("the profile was measured for another time, or in another number of processes")
    for name, file in job.models.items():
        model = document.models.get(name)
        if model is None or model.sha256 != sha256(job.files[file]):
            raise TargetError(f"the profile is not of the file {file} that was sent")
        results = [result for result in document.results if result.model == name]
        wanted = set(itertools.product(timed.batches, timed.threads))
        if {(result.batch, result.threads) for result in results} != wanted:
            raise TargetError(f"the profile's batch or threads are not those that were asked for ({name})")
        if any("p50_ms" not in result.summary.percentiles for result in results):
            raise TargetError(f"the profile has too few calls of {name} for a median; raise profile.timing.duration_s")
    return document


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
