"""Turn every failure of a command into one sentence on standard error and an exit code.

Exit codes: 0 done, 1 we failed, 2 the user's mistake, 3 the run waits for a person, 130 interrupted.
"""

import errno
import io
import traceback
from collections.abc import Callable
from typing import Any

import typer

from edgestill.flows.terminal import close_streams, say

_INTERRUPTED = 130
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def guarded(work: Callable[[], object], debug: bool) -> int:
    """Do a command's work and return its exit code; `debug` raises an error instead of telling it."""
    try:
        result = work()
    except typer.Exit as stop:
        return _ended(stop.exit_code)
    except _UsageError as error:
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        return _ended(_INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        return failed(error)
    return _ended(result if isinstance(result, int) else 0)


def _ended(code: int) -> int:
    if code == _INTERRUPTED:  # typer returns it for Ctrl-C too
        say("interrupted", err=True)
    return code


def _misused(error: Any) -> int:
    said = io.StringIO()
    error.show(said)
    say(said.getvalue().rstrip("\n"), err=True)
    if type(error).__name__ == "NoSuchOption":
        say("keys of the configuration are set by --set KEY=VALUE, such as --set distill.training.epochs=3", err=True)
    return 2


def failed(error: Exception) -> int:
    """Tell an error on standard error, and return its exit code."""
    from edgestill.pipeline.errors import EdgestillError, FailedError, WaitingError

    if isinstance(error, OSError) and _is_of_help(error):
        close_streams()
        if isinstance(error, BrokenPipeError):
            return 0
        error = FailedError(f"standard output cannot be written ({error.strerror})")
    word = "waiting" if isinstance(error, WaitingError) else "error"
    say("\n".join(f"{word}: {problem}" for problem in sentence_of(error).split("\n")), err=True)
    return error.exit_code if isinstance(error, EdgestillError) else 2 if _is_of_a_path(error) else 1


def sentence_of(error: Exception) -> str:
    """Tell an error in one sentence, or in one for each problem of a user's mistake."""
    from edgestill.pipeline.environment import environments_fault
    from edgestill.pipeline.errors import EdgestillError, first_line, told

    if isinstance(error, EdgestillError):
        return str(error)
    if (fault := environments_fault(error)) is not None:
        return fault
    if isinstance(error, MemoryError):
        return (
            f"there is too little memory here for this ({first_line(error, 'none left')}); free some, or use less data"
        )
    if isinstance(error, OSError):
        way_out = "; name another path" if _is_of_a_path(error) else ""
        said = f"{error.strerror or error} ({error.filename}){way_out}" if error.filename else str(error)
        return told((said,))[0]
    return f"{type(error).__name__}: {first_line(error)} (this is our mistake; --debug shows where)"


def _is_of_help(error: OSError) -> bool:
    """True if the error came from typer printing the help text."""
    return any(frame.f_code.co_name == "echo" for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_of_a_path(error: Exception) -> bool:
    """True if the error is about a named path, missing or not accessible; False if, say, the disk failed."""
    kinds = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
    if not isinstance(error, OSError) or error.filename is None:
        return False
    return isinstance(error, kinds) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
