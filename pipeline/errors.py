"""Every error that edgestill raises on purpose.

EdgestillError                 one clear sentence for a person; `exit_code` is the command's
├── UserError (ValueError)     2: something the user gave is wrong, and the user can mend it
│   ├── ConfigError            the configuration; carries all of its problems at once
│   ├── DataError              a data file or its contents
│   ├── CheckpointError        a weights file that cannot be read or does not fit
│   ├── ArchitectureError      a string that names no architecture of its space
│   ├── BudgetError            no student of the space meets the budget
│   ├── RunDirError            a run that is missing, held by another process, or altered
│   ├── BundleError            a bundle or a model file that is damaged, altered or hostile; carries all its problems
│   └── MissingDependencyError an optional library; says how to get it
├── WaitingError               3: nothing is wrong; the run waits for a person, and says for what
└── FailedError (RuntimeError) 1: a valid request that could not be fulfilled
    ├── TrainingError          the loss became NaN or infinite
    ├── CandidateError         one student could not be scored; never ends a search
    ├── EngineError            the workers of device.engine are gone; no training of theirs is to blame
    ├── ExportError            the exported file is not the network
    └── TargetError            a device that cannot be reached, or cannot measure
        └── DroppedOut         the link to it broke: the same may work a moment later
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

_LONGEST = 2000  # characters of one problem; lists of all known names are long
_MOST_KNOWN = 60  # names in a hint
_WORD = re.compile(r"[^\s/]{121,}")  # longer than a name or digest that a person would look for; paths have slashes


class EdgestillError(Exception):
    """Base of the tree above; `str()` is one sentence, or one problem a line.

    Sentences quote files, names and libraries, and other programs log them. So characters that would steer a terminal
    or break a line are escaped, and long sentences are cut.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__(*told(problems, most=len(problems), longest=_LONGEST))

    def __str__(self) -> str:
        return "\n".join(self.args)

    def __reduce__(self) -> tuple[Any, ...]:  # from another process, it keeps its sentence and attributes
        return _restored, (type(self), self.args, self.__dict__)


class UserError(EdgestillError, ValueError):
    exit_code = 2


class ConfigError(UserError):
    """All problems of one configuration."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = self.args


class DataError(UserError):
    pass


class CheckpointError(UserError):
    pass


class ArchitectureError(UserError):
    pass


class BudgetError(UserError):
    pass


class RunDirError(UserError):
    pass


class BundleError(UserError):
    """All problems of one bundle or one model file; nothing in it was run.

    The sentences quote the file, so they are escaped, few and short.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = told(problems)
        super().__init__(*self.problems)

    def __reduce__(self) -> tuple[type["BundleError"], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class MissingDependencyError(UserError):
    pass


class WaitingError(EdgestillError):
    exit_code = 3


class FailedError(EdgestillError, RuntimeError):
    exit_code = 1


class TrainingError(FailedError):
    pass


class CandidateError(FailedError):
    """Failure of one student's score. Its `type` is out_of_memory, not_finite, dead or export; empty: the cause's."""

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type


class EngineError(FailedError):
    pass


class ExportError(FailedError):
    pass


class TargetError(FailedError):
    pass


class DroppedOut(TargetError):
    pass


def _restored(kind: type[EdgestillError], args: tuple[Any, ...], carried: Mapping[str, Any]) -> EdgestillError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(carried)
    return error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint after an unknown name: the closest known ones, then all of them, or the first of very many."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    more = f" and {len(known) - _MOST_KNOWN:,} more" if len(known) > _MOST_KNOWN else ""
    return f"{hint}known: {', '.join(known[:_MOST_KNOWN])}{more}"


def command(*words: object) -> str:
    """Quote an edgestill command so that a person can paste it into a shell."""
    return f"`{shlex.join(['edgestill', *map(str, words)])}`"


def first_line(error: BaseException, otherwise: str = "") -> str:
    """First line of a library's error, printable; the rest is for its own developers."""
    return printable((str(error).strip().splitlines() or [otherwise])[0])


def told(problems: Iterable[str], most: int = 10, longest: int = 450) -> tuple[str, ...]:
    """Make sentences that may quote a hostile file fit to show: printable, cut, and `most` of them at most.

    A word of more than 120 characters is cut too, so that what a sentence says about it is still seen.
    """
    found = [_WORD.sub(lambda word: f"{word[0][:80]}…", problem) for problem in problems]
    cut = [problem if len(problem) <= longest else f"{problem[: longest - 1]}…" for problem in found[:most]]
    shown = [printable(problem)[: longest + 30] for problem in cut]
    return (*shown, *([f"and {len(found) - most:,} more"] if len(found) > most else []))


def printable(text: str) -> str:
    """Escape characters that would steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
