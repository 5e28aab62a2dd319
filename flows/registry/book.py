"""The registry's file, `registry/registry.json` in the folder of the runs: written whole, by one process at a time."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.frozen import Frozen, first_problem
from edgestill.pipeline.runs.checkpoint import write_atomic

FOLDER, FILE = "registry", "registry.json"
_WAIT_S = 60


class Decision(Frozen):
    """A decision on a run, with its reason.

    A run that is kept stays a candidate. An abandoned one was killed and cannot go on. A drifted one is the promoted
    one, worse on a night's data than on its own.
    """

    run: str  # its folder's name
    at: str
    kind: Literal["promoted", "kept", "rolled_back", "abandoned", "drifted"]
    by: Literal["rule", "hand"]
    reason: str
    against: str | None = None  # the run that was promoted then


class Book(Frozen):
    """The whole registry."""

    schema_version: int = Field(1, alias="schema")
    promoted: tuple[str, ...] = ()  # runs, the one that counts now last
    decisions: tuple[Decision, ...] = ()  # oldest first
    looks: dict[str, int] = {}  # digest of a test split -> comparisons made on it
    removed: tuple[str, ...] = ()  # runs that retention has deleted

    @property
    def current(self) -> str | None:
        """Name of the promoted run."""
        return self.promoted[-1] if self.promoted else None

    def deciding(self, decision: Decision) -> "Book":
        """Return the book with a decision added."""
        promoted = self.promoted
        if decision.kind == "promoted" and decision.run != self.current:
            promoted = (*promoted, decision.run)
        elif decision.kind == "rolled_back":
            promoted = promoted[:-1]
        return self.model_copy(update={"promoted": promoted, "decisions": (*self.decisions, decision)})

    def looking(self, test: str) -> "Book":
        """Return the book with one more comparison on a test split."""
        return self.model_copy(update={"looks": self.looks | {test: self.looks.get(test, 0) + 1}})


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_book(runs: Path) -> Book:
    """Read the registry of a folder of runs; an empty one where there is none.

    Raises:
        RunDirError: the file is damaged.
    """
    path = runs / FOLDER / FILE
    if not path.is_file():
        return Book(schema=1)
    try:
        return Book.model_validate_json(read_json_bounded(path, RunDirError))
    except ValidationError as error:
        raise RunDirError(f"{path} is damaged ({first_problem(error)}); put it back, or move it away") from None


@contextlib.contextmanager
def held_book(runs: Path) -> Iterator["Pages"]:
    """Hold the registry for a change; nothing is written if the block raises.

    Raises:
        RunDirError: another process holds it.
    """
    (runs / FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / FOLDER / ".lock", timeout=_WAIT_S):
            pages = Pages(read_book(runs))
            yield pages
            write_atomic(runs / FOLDER / FILE, f"{pages.book.model_dump_json(indent=1, by_alias=True)}\n".encode())
    except Timeout:
        raise RunDirError(f"another process holds the registry of {runs}; try again when it is done") from None


class Pages:
    """The registry while it is held: replace `book` to change it."""

    def __init__(self, book: Book) -> None:
        self.book = book


@contextlib.contextmanager
def one_night(runs: Path) -> Iterator[bool]:
    """Hold the night of a folder of runs, on whichever machine; False if another process has it.

    The folder's file system must know locks, as local ones and NFS 4 do.
    """
    (runs / FOLDER).mkdir(parents=True, exist_ok=True)
    lock = FileLock(runs / FOLDER / ".night.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
