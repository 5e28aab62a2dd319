"""Retention: old candidates go, by count, age and bytes; the promoted run and what others link to never do."""

import datetime
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from edgestill.flows.registry.book import Book, held_book
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.manifest import MANIFEST, read_run_manifest
from edgestill.pipeline.runs.rundir import RunDir

_PAGES = ("report.html", "config.yaml")
_KEPT_PROMOTIONS = 2  # the current run and the one that `rollback` goes back to


class Retention(Frozen):
    """Limits on the candidates that stay; None: no limit."""

    count: int | None = Field(None, ge=1)
    days: float | None = Field(None, gt=0)
    max_bytes: int | None = Field(None, ge=1)


def prune(runs: Path, limits: Retention, at: datetime.datetime) -> list[str]:
    """Delete candidates above the limits, oldest first, and return their names.

    Runs that are not in the registry are a person's own and stay. So do the promoted run, the one before it, runs that
    a process holds, and runs that the report or the configuration of a run that stays names.
    """
    with held_book(runs) as pages:
        candidates = _candidates(runs, pages.book)
        gone = list(_above(runs, candidates, limits, at))
        protected = set(pages.book.promoted[-_KEPT_PROMOTIONS:])
        removed = [name for name in _unlinked(runs, gone, protected) if _deleted(runs / name)]
        pages.book = pages.book.model_copy(update={"removed": (*pages.book.removed, *removed)})
        return removed


def _candidates(runs: Path, book: Book) -> list[str]:
    """Names of the registry's runs that are there, newest first."""
    names = dict.fromkeys(decision.run for decision in book.decisions)
    return sorted((name for name in names if (runs / name / MANIFEST).is_file()), reverse=True)


def _above(runs: Path, candidates: Sequence[str], limits: Retention, at: datetime.datetime) -> Iterator[str]:
    taken = 0
    for place, name in enumerate(candidates):
        taken += sum(path.stat().st_size for path in (runs / name).rglob("*") if path.is_file())
        age = at - datetime.datetime.fromisoformat(read_run_manifest(runs / name).created)
        is_above = (
            (limits.count is not None and place >= limits.count)
            or (limits.days is not None and age > datetime.timedelta(days=limits.days))
            or (limits.max_bytes is not None and taken > limits.max_bytes)
        )
        if is_above:
            yield name


def _unlinked(runs: Path, gone: Sequence[str], protected: set[str]) -> list[str]:
    """Names among those to go that no run that stays names, oldest first."""
    leaving = {name for name in gone if name not in protected}
    while True:
        staying = [path.parent for path in runs.glob(f"*/{MANIFEST}") if path.parent.name not in leaving]
        text = "\n".join(_text(run / page) for run in staying for page in _PAGES)
        linked = {name for name in leaving if name in text}
        if not linked:
            return sorted(leaving)
        leaving -= linked


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _deleted(run: Path) -> bool:
    """Delete a run, unless a process holds it."""
    try:
        with RunDir.open(run) as held:
            held.discard()
    except RunDirError:
        return False
    shutil.rmtree(run, ignore_errors=True)  # the lock's own file
    return True
