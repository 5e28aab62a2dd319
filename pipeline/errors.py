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
└── FailedError (RuntimeError) 1: we could not do what was rightly asked
    ├── TrainingError          the loss became NaN or infinite
    ├── CandidateError         one student could not be scored; never ends a search
    └── ExportError            the exported file is not the network
"""

import difflib
import shlex
from collections.abc import Iterable


class EdgestillError(Exception):
    """Base of the tree above; `str()` is one sentence, or one problem a line."""

    exit_code = 1


class UserError(EdgestillError, ValueError):
    exit_code = 2


class ConfigError(UserError):
    """All problems of one configuration."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


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
    """What was found with one bundle or one model file; nothing in it was run.

    The sentences quote the file, so what would steer a terminal is spelt out, and they are few and short.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = told(problems)
        super().__init__("\n".join(self.problems))


class MissingDependencyError(UserError):
    pass


class FailedError(EdgestillError, RuntimeError):
    exit_code = 1


class TrainingError(FailedError):
    pass


class CandidateError(FailedError):
    """`type` sorts failures for people: out_of_memory, not_finite, dead, export; empty leaves it to the cause."""

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type


class ExportError(FailedError):
    pass


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the closest known ones, then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def command(*words: object) -> str:
    """An edgestill command as a person can paste it into a shell."""
    return f"`{shlex.join(['edgestill', *map(str, words)])}`"


def first_line(error: BaseException, otherwise: str = "") -> str:
    """What a library's error says first, printable; the rest is for its own developers."""
    return printable((str(error).strip().splitlines() or [otherwise])[0])


def told(problems: Iterable[str], most: int = 10) -> tuple[str, ...]:
    """Sentences that may quote a hostile file, as a person is told them: printable, cut to 450 characters, `most`."""
    found = list(problems)
    shown = [printable(problem if len(problem) <= 450 else f"{problem[:449]}…")[:480] for problem in found[:most]]
    return (*shown, *([f"and {len(found) - most:,} more"] if len(found) > most else []))


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
