"""Child processes: interpreters that import nothing from the current folder, bounded readers of foreign files.

`python -c` and `python -m` put the current folder first on the path of imports, so a file there that is called as a
module (`onnx.py`) would run. Every interpreter that edgestill starts is started by `interpreter` and `environment`.

`answer` calls a function in such a child with a bound on its memory and its time. It is for files from elsewhere: a
hostile one may have its reader take any amount of either, and a bound on this process could end it.
"""

import contextlib
import importlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import UserError, printable

MEMORY_BYTES, SECONDS = 2**30, 60
_ROOT = str(Path(__file__).resolve().parents[1])
_REFUSED, _NO_MEMORY = 3, 4  # exit codes of a child that said why
_START = f"import sys; sys.path.append({_ROOT!r}); from pipeline.child import serve; serve()"
_MOST_SAID = 2000  # bytes of a child's own words


class ChildError(Exception):
    """A child gave no answer; `str()` says why, as the end of a sentence about what it was given: "needs more …"."""


class ChildRefused(ChildError):
    """The function itself raised: what it was given is not what it takes."""


def interpreter(*arguments: str) -> list[str]:
    """The command of a Python like this one with the arguments, whose imports do not begin in the current folder."""
    return [sys.executable, "-P", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child: its own children have a safe path too, PYTHONPATH names no "here"."""
    own = dict(os.environ) | {"PYTHONSAFEPATH": "1"} | dict(extra or {})
    if "PYTHONPATH" in own:
        named = own["PYTHONPATH"].split(os.pathsep)
        ours = [_ROOT] if any(path and str(Path(path).resolve()) == _ROOT for path in named) else []
        own["PYTHONPATH"] = os.pathsep.join([*ours, *(path for path in named if Path(path).is_absolute())])
    return own


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Makes this process's own environment that of `environment`, for children that a library starts."""
    own = environment()
    changed = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONPATH") if name in own}
    os.environ.update({name: own[name] for name in changed})
    try:
        yield
    finally:
        for name, before in changed.items():
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def answer(
    function: str,
    data: bytes,
    *arguments: str,
    memory_bytes: int = MEMORY_BYTES,
    seconds: float = SECONDS,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """What a function says of foreign bytes, called in a child of bounded memory and time.

    Args:
        function: `module:name` of ours; called with the data and the arguments, it returns bytes.
        memory_bytes: of addresses, beside what the child has taken once its module is imported. No bound where the
            system has none (Windows, macOS).
        extra: of the child's environment.

    Raises:
        ChildRefused: the function raised an error of its own.
        ChildError: it needed more memory or time, or its process died.
    """
    command = interpreter("-c", _START, function, str(memory_bytes), str(math.ceil(seconds)), *arguments)
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=seconds, env=environment({**single, **(extra or {})})
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"needs more than {seconds:g} s to be read") from None
    said = printable(done.stderr[-_MOST_SAID:].decode("utf-8", "replace").strip())
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _REFUSED:
        raise ChildRefused(said)
    if done.returncode == _NO_MEMORY or "bad_alloc" in said or done.returncode == -signal.SIGKILL:
        raise ChildError(f"needs more than {memory_bytes / 2**20:,.0f} MiB of memory to be read")
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise ChildError(f"needs more than {seconds:g} s to be read")
    raise ChildError(f"ends the process that reads it ({ended(done.returncode)})")


def ended(code: int | None) -> str:
    """How a process ended, in words: `was killed by SIGSEGV`, `ended with exit code 1`."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def serve() -> None:
    """The child's side of `answer`."""
    target, memory, seconds, *arguments = sys.argv[1:]
    module, name = target.split(":")
    answering = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer
    function = getattr(importlib.import_module(module), name)
    data = sys.stdin.buffer.read()
    _bound(int(memory), int(seconds))
    try:
        found = function(data, *arguments)
    except MemoryError:
        os._exit(_NO_MEMORY)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(
            printable((said.strip().splitlines() or [type(error).__name__])[0])[:_MOST_SAID],
            file=sys.stderr,
            flush=True,
        )
        os._exit(_REFUSED)
    answering.write(found)
    answering.flush()
    os._exit(0)  # no interpreter's tidying, which may fail for memory


def _bound(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):  # a tighter bound is there already
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory,) * 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds + 1, seconds + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
