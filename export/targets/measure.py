"""Measures models on a target: connects, asks, sends, waits, and goes on after a link that broke."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from edgestill.export.device.document import ProfileDocument, parse_profile
from edgestill.export.targets.config import PACKAGES, TargetConfig
from edgestill.export.targets.connect import connect
from edgestill.export.targets.connection import Connection
from edgestill.export.targets.job import Job, require_of
from edgestill.export.targets.probe import TargetFacts, ask, missing, unfit
from edgestill.export.targets.remote import clean, forget, install, run_job
from edgestill.pipeline.errors import DataError, DroppedOut, ExportError, TargetError
from edgestill.pipeline.figures import listing
from edgestill.pipeline.nicety import nicety

T = TypeVar("T")
PAUSES_S = (1.0, 3.0, 10.0, 30.0, 60.0)  # between attempts after a broken link


class Device:
    """A target with its connection, which is opened when it is needed, and again after it broke. Use it in `with`.

    Args:
        patient: try again for a while after the link broke.
    """

    def __init__(
        self, target: TargetConfig, say: Callable[[str], None] = lambda line: None, patient: bool = True
    ) -> None:
        self.target = target
        self._say, self._pauses = say, PAUSES_S if patient else ()
        self._connection: Connection | None = None
        self._known: TargetFacts | None = None  # the facts at the last time, which change slowly in part
        self.cautions: list[str] = []  # things that went on without, a sentence each

    def facts(self, opset: int | None = None) -> TargetFacts:
        """Ask for the device's facts as of now.

        Raises:
            TargetError: it cannot be reached, or lacks something to measure by.
        """
        return self._patiently(lambda connection: self._able(connection, opset))

    def asked(self) -> TargetFacts:
        """Ask for the device's facts, whatever it lacks.

        Raises:
            TargetError: it cannot be reached.
        """
        return self._patiently(lambda connection: ask(connection, self.target))

    def install(self, facts: TargetFacts) -> None:
        """Install numpy, onnxruntime and what the target's formats need besides into our folder there.

        Raises:
            TargetError: it cannot be reached, or its pip fails.
        """
        packages = ["numpy", "onnxruntime", *(PACKAGES[runtime][0] for runtime in self.target.other_runtimes)]
        self._told(f"installing {listing(packages)} into {facts.root}/venv")
        self._patiently(lambda connection: install(connection, facts, packages))

    def cleaned(self) -> bool:
        """Remove our folder there; return False if there is none.

        Raises:
            TargetError: it cannot be reached, or does not let the folder be removed.
        """
        return self._patiently(lambda connection: clean(connection, ask(connection, self.target)))

    def measure(self, job: Job, opset: int | None = None, keep: bool = True) -> ProfileDocument:
        """Measure a job's models there.

        Args:
            keep: leave the files there, so that they are not sent again.

        Raises:
            TargetError: the device cannot do it; says why.
            ExportError: the runtime there refuses a file.
        """
        seen: list[TargetFacts] = []

        def attempt(connection: Connection) -> bytes:
            facts = self._able(connection, opset)
            seen.append(facts)
            problems = unfit(facts, self.target, job.size_bytes)
            return run_job(connection, facts, job, self.target.limit_s, problems, self._told)

        data = self._patiently(attempt)
        with nicety(f"{self.target.name}: files of a measurement are left there", self.cautions):
            self._patiently(lambda connection: forget(connection, seen[-1], job, keep))
        try:
            return require_of(parse_profile(data, "the profile from there"), job)
        except (TargetError, DataError) as error:
            raise TargetError(f"{self.target.name}: {error}") from None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _able(self, connection: Connection, opset: int | None) -> TargetFacts:
        facts = ask(connection, self.target, self._known)
        problems = missing(facts, self.target, opset)
        if problems:
            raise TargetError("; ".join(problems))
        self._known = facts
        return facts

    def _patiently(self, attempt: Callable[[Connection], T]) -> T:
        """Attempt something, and once more after each pause if the link broke."""
        for pause in (*self._pauses, None):
            try:
                if self._connection is None:
                    self._connection = connect(self.target)
                return attempt(self._connection)
            except DroppedOut as error:
                self.close()
                if pause is None and not self._pauses:
                    raise TargetError(f"{self.target.name}: {error}") from None
                if pause is None:
                    raise TargetError(
                        f"{self.target.name} dropped out: {error}; when it is back, the same command goes on (a run: "
                        f"`edgestill resume`); `edgestill target clean {self.target.name}` removes what is left there"
                    ) from None
                self._told(f"{error}; trying again in {pause:g} s")
                time.sleep(pause)
            except (TargetError, ExportError) as error:
                raise type(error)(f"{self.target.name}: {error}") from None
        raise AssertionError

    def _told(self, line: str) -> None:
        self._say(f"{self.target.name}: {line}")
