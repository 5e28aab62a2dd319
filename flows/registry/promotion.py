"""Promotion by the rule or by hand, and the way back."""

from pathlib import Path
from typing import Literal

from edgestill.flows.registry.book import Book, Decision, held_book, now
from edgestill.flows.registry.compare import Finished, compare, finished
from edgestill.flows.registry.rule import judge
from edgestill.pipeline.errors import EdgestillError, RunDirError, first_line

_UNCOMPARED = "not compared: "


def consider(root: Path) -> Decision:
    """Enter a finished run as a candidate, promote it if the rule says so, and return the decision.

    A run that was decided on before is not looked at again.

    Raises:
        RunDirError: the run is not finished.
    """
    candidate = finished(root)
    with held_book(root.parent) as pages:
        name, current = root.name, pages.book.current
        before = [decision for decision in pages.book.decisions if decision.run == name]
        if before:
            return before[-1]
        if current is None:
            decision = Decision(run=name, at=now(), kind="promoted", by="rule", reason="the first one")
        else:
            decision = _by_rule(root, candidate, current, pages.book)
            if not decision.reason.startswith(_UNCOMPARED):
                pages.book = pages.book.looking(candidate.data.digests["test"])
        pages.book = pages.book.deciding(decision)
        return decision


def _by_rule(root: Path, candidate: Finished, current: str, book: Book) -> Decision:
    try:
        promoted = finished(root.parent / current)
        if ships_the_same(candidate, promoted):  # no look at the test split is spent on it
            raise RunDirError(f"it ships the very file of the promoted {current}")
        look = book.looks.get(promoted.data.digests["test"], 0) + 1
        verdict = judge(compare(candidate, promoted, look))
    except EdgestillError as error:
        why = f"{_UNCOMPARED}{first_line(error)}"
        return Decision(run=root.name, at=now(), kind="kept", by="rule", reason=why, against=current)
    kind: Literal["promoted", "kept"] = "promoted" if verdict.is_promoted else "kept"
    return Decision(run=root.name, at=now(), kind=kind, by="rule", reason=verdict.reason, against=current)


def ships_the_same(candidate: Finished, promoted: Finished) -> bool:
    """True if the default files of both runs have the same bytes, as where an earlier run's stages were taken over."""
    return (candidate.format, candidate.file.sha256) == (promoted.format, promoted.file.sha256)


def promote(root: Path, reason: str) -> Decision:
    """Promote a finished run by hand.

    Raises:
        RunDirError: the run is not finished.
    """
    finished(root)
    with held_book(root.parent) as pages:
        current = pages.book.current
        decision = Decision(run=root.name, at=now(), kind="promoted", by="hand", reason=reason, against=current)
        pages.book = pages.book.deciding(decision)
        return decision


def roll_back(runs: Path, reason: str) -> Decision:
    """Make the run that was promoted before the current one the promoted one again.

    Raises:
        RunDirError: there is none.
    """
    with held_book(runs) as pages:
        if len(pages.book.promoted) < 2:
            raise RunDirError(f"no run was promoted before the current one in {runs}; nothing to go back to")
        *_, before, current = pages.book.promoted
        finished(runs / before)
        decision = Decision(run=before, at=now(), kind="rolled_back", by="hand", reason=reason, against=current)
        pages.book = pages.book.deciding(decision)
        return decision
