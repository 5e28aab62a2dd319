"""Optuna study in a file or on a server: a check of its owner, patience with locks, and clear errors for damage.

The process that holds the run directory holds the study. Should others join through the study's file, Optuna itself
fails and retries trials without a heartbeat.
"""

import contextlib
import errno
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy

from edgestill.distill.study_server import StudyServer, connector, held
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.runs.sealed import damaged, foreign

HEARTBEAT_S, GRACE_S, RETRIES = 30, 90, 3
NOTE_S, PATIENCE_S = 5.0, 120.0  # of waiting for a lock: until a person is told, and until giving up
_OWNER = "belongs_to"
_STORAGE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)

Value = TypeVar("Value")


@contextlib.contextmanager
def opened(
    place: Path | StudyServer, name: str, owner: str, pruner: optuna.pruners.BasePruner, say: Callable[[str], None]
) -> Iterator[optuna.Study]:
    """Open the study, or make it if there is none; an error of its storage leaves the block as one sentence.

    Args:
        name: that Hyperband assigns brackets by. On a server the study has another, of its run.

    Raises:
        RunDirError: the file has another owner, is damaged, or was locked for too long.
        OSError: the disk is full or fails.
    """
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(place, Path):
                storage = _storage(place, _Patience(place, say))
            else:
                connect = connector(place, say)
                stack.enter_context(held(place, connect))
                storage = _served(connect, place.name, name)
            study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
            )
            if not study.trials and _OWNER not in study.user_attrs:
                study.set_user_attr(_OWNER, owner)
            if study.user_attrs.get(_OWNER) != owner:
                raise foreign(place)
            yield study
        except _STORAGE_ERRORS as error:
            if isinstance(place, Path):
                raise _told(place, error) from error
            reason = place.told(getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error)
            raise RunDirError(
                f"{place} was lost in the middle of an entry ({reason}); mend that, then resume the run: no finished "
                "trial is lost"
            ) from None


class _Patience:
    """Wait for a file locked by another process: say so after NOTE_S, and give up after PATIENCE_S."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say, self._told = path, say, threading.Lock()

    def __call__(self, ask: Callable[[], Value]) -> Value:
        begun, told = time.monotonic(), False
        try:
            while True:
                try:
                    return ask()
                except sqlite3.OperationalError as error:
                    if _primary(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                        raise
                waited = time.monotonic() - begun
                if waited > PATIENCE_S:
                    raise RunDirError(
                        f"{self._path} was locked by another process for {PATIENCE_S:.0f} s (a backup, a database "
                        "browser, a stopped run?); end that, then resume the run: no trial is lost"
                    )
                if waited >= NOTE_S and not told and self._told.acquire(blocking=False):  # one thread of ours says it
                    told = True
                    self._say(f"waiting up to {PATIENCE_S:.0f} s: another process has locked {self._path}")
                time.sleep(0.05)  # SQLite itself does not wait for a lock in a deadlock
        finally:
            if told:
                self._told.release()


def _storage(path: Path, patience: _Patience) -> optuna.storages.RDBStorage:
    """Open the study's storage by its path, never as a part of a URL, where `?`, `#` and `%` mean something."""

    class Cursor(sqlite3.Cursor):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:  # type: ignore[override]
            return patience(lambda: sqlite3.Cursor.execute(self, *arguments))

        def executemany(self, *arguments: Any) -> sqlite3.Cursor:  # type: ignore[override]
            return patience(lambda: sqlite3.Cursor.executemany(self, *arguments))

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> sqlite3.Cursor:  # type: ignore[override]
            return super().cursor(Cursor)

        def commit(self) -> None:
            patience(super().commit)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=1, check_same_thread=False, factory=Connection)

    return _beating("sqlite://", {"creator": connect, "poolclass": sqlalchemy.pool.QueuePool})


def _served(connect: Callable[[], Any], theirs: str, ours: str) -> optuna.storages.RDBStorage:
    """Open a server's storage; a connection that was lost is made anew before the next entry.

    Args:
        theirs, ours: the study's name there, and here.
    """

    class Named(_Beating):
        def create_new_study(self, directions: Sequence[Any], study_name: str | None = None) -> int:
            return super().create_new_study(directions, theirs)

        def get_study_id_from_name(self, study_name: str) -> int:
            return super().get_study_id_from_name(theirs)

        def get_study_name_from_id(self, study_id: int) -> str:
            return ours

    return _beating("postgresql+psycopg://", {"creator": connect, "pool_pre_ping": True}, Named)


class _Beating(optuna.storages.RDBStorage):
    def record_heartbeat(self, trial_id: int) -> None:
        """Skip a beat that cannot be written: the trial's own entries raise the error."""
        with contextlib.suppress(*_STORAGE_ERRORS, RunDirError):
            super().record_heartbeat(trial_id)


def _beating(url: str, engine: dict[str, Any], kind: type[_Beating] = _Beating) -> optuna.storages.RDBStorage:
    with warnings.catch_warnings():  # heartbeats are "experimental" since 2021
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(
            url,
            engine_kwargs=engine,
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )


def _told(path: Path, error: BaseException) -> Exception:
    """Turn SQLite's error into one sentence; Optuna's own message always suspects an excessive length."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, sqlite3.Error):
        found = getattr(found, "orig", None) or found.__cause__
    if found is None:
        return damaged(path, cause=str(error).splitlines()[0])
    match _primary(found):
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        case sqlite3.SQLITE_IOERR:
            return OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return RunDirError(f"{path} cannot be opened for writing ({found}); mend that, then resume the run")
    return damaged(path, cause=str(found))


def _primary(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 255, which is no code, if it gave none."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF
