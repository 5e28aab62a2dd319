"""Studies on a PostgreSQL server: their address, their secrets, and patience while the server is away.

The address is `device.studies` or the environment's EDGESTILL_STUDIES; a password comes from the environment alone
(there, PGPASSWORD or PGPASSFILE). No sentence, log or file of a run has it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgestill.pipeline.engines.address import is_loopback
from edgestill.pipeline.errors import MissingDependencyError, RunDirError, UserError, first_line

STUDIES = "EDGESTILL_STUDIES"
PATIENCE_S, NOTE_S = 60.0, 2.0  # of waiting for a server: until giving up, and until a person is told
_TIMEOUT_S = 5  # of one try to connect
_PASSING = ("starting up", "shutting down", "in recovery", "terminating connection", "not yet accepting")


@dataclass(frozen=True)
class StudyServer:
    """A study on a server, by its name there."""

    name: str
    source: str  # setting or variable that has the address
    address: str = field(repr=False)

    def __str__(self) -> str:
        settings = self.settings()
        port = settings.get("port", os.environ.get("PGPORT", "5432"))
        return f"the study {self.name!r} at {self._host(settings)}:{port}/{settings.get('dbname', '')}"

    def settings(self) -> dict[str, Any]:
        """Return psycopg's settings; another machine is spoken to over TLS unless the address says otherwise.

        Raises:
            MissingDependencyError: psycopg is not installed.
            UserError: the address cannot be read; the error does not quote it.
        """
        try:
            import psycopg
        except ImportError:
            raise MissingDependencyError(f"{self.source} needs `pip install 'edgestill[postgresql]'`") from None
        try:
            settings = dict(psycopg.conninfo.conninfo_to_dict(self.address))
        except psycopg.Error:
            raise UserError(f"{self.source} cannot be read; write postgresql://HOST:5432/DATABASE") from None
        host = self._host(settings)
        if not (host.startswith("/") or is_loopback(host)) and "PGSSLMODE" not in os.environ:
            settings.setdefault("sslmode", "require")
        return {"connect_timeout": _TIMEOUT_S, **settings}

    @staticmethod
    def _host(settings: dict[str, Any]) -> str:
        return str(settings.get("host") or os.environ.get("PGHOST") or "localhost")

    def told(self, error: BaseException) -> str:
        """First line of psycopg's error, without the password."""
        secrets = {str(self.settings().get("password") or ""), os.environ.get("PGPASSWORD", "")} - {""}
        text = first_line(error, type(error).__name__)
        for secret in secrets:
            text = text.replace(secret, "***")
        return text


def study_place(address: str | None, file: Path) -> "Path | StudyServer":
    """Return the place of a study: on the configured or the environment's server, else the file itself.

    Args:
        address: `device.studies`.
        file: in its run; on a server the study is named by the run, the stage and the file.

    Raises:
        MissingDependencyError, UserError: as `StudyServer.settings`.
    """
    source = STUDIES if address is None else "device.studies"
    found = os.environ.get(STUDIES) if address is None else address
    if not found:
        return file
    server = StudyServer("/".join(file.absolute().parts[-3:]).removesuffix(".db"), source, found)
    if not found.startswith(("postgresql://", "postgres://")):
        raise UserError(f"{source} is no address of PostgreSQL; write postgresql://HOST:5432/DATABASE")
    server.settings()
    return server


def exists(place: "Path | StudyServer") -> bool:
    """True if the study is there. A server that does not answer is waited for.

    Raises:
        RunDirError: it did not answer for PATIENCE_S, or refuses.
    """
    if isinstance(place, Path):
        return place.exists()
    with connector(place, lambda line: None)() as connection:
        there = connection.execute("SELECT to_regclass('studies')").fetchone()[0]
        query = "SELECT count(*) FROM studies WHERE study_name = %s"
        return bool(there and connection.execute(query, (place.name,)).fetchone()[0])


def connector(server: StudyServer, say: Callable[[str], None]) -> Callable[[], Any]:
    """Return a function that connects, and waits for a server that is away.

    Raises:
        RunDirError: by the function: it was away for PATIENCE_S, or refuses.
    """
    import psycopg

    def connect() -> Any:
        begun, told = time.monotonic(), False
        while True:
            try:
                return psycopg.connect(**server.settings())
            except psycopg.OperationalError as error:
                reason = server.told(error)
            if "FATAL:" in reason and not any(words in reason for words in _PASSING):
                raise RunDirError(f"{server} cannot be opened ({reason}); mend that, then resume the run") from None
            waited = time.monotonic() - begun
            if waited > PATIENCE_S:
                raise RunDirError(
                    f"{server} was out of reach for {PATIENCE_S:.0f} s ({reason}); start the server, then resume the "
                    "run: no trial is lost"
                ) from None
            if waited >= NOTE_S and not told:
                told = True
                say(f"waiting up to {PATIENCE_S:.0f} s: {server} does not answer")
            time.sleep(0.2)

    return connect


@contextmanager
def held(server: StudyServer, connect: Callable[[], Any]) -> Iterator[None]:
    """Hold the study within, so that no other process works on it: a lock that ends with this process.

    Raises:
        RunDirError: another process holds it.
    """
    connection = connect()
    try:
        connection.autocommit = True
        found = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (server.name,)).fetchone()
        if not found[0]:
            raise RunDirError(f"{server} is worked on by another process; end that, then resume the run")
        yield
    finally:
        connection.close()
