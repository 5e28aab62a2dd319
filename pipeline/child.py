"""Child processes: interpreters that import nothing from the current folder, and bounded readers of foreign files.

`python -c` and `python -m` put the current folder first on the import path, so a file there with a module's name
(`onnx.py`) would run. Every interpreter that edgestill starts uses `interpreter` and `environment` against this.

`answer` calls a function in such a child with a bound on its memory and its time. It is for files from elsewhere: a
hostile one can make its reader take any amount of either, and a bound on this process itself could end it.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from edgestill.pipeline.errors import UserError, printable

MEMORY_BYTES, SECONDS = 2**30, 60
ROOT = str(Path(__file__).absolute().parents[2].resolve())  # the packages are links in a checkout
_REFUSED, _NO_MEMORY, _BROKEN = 3, 4, 5  # exit codes of a child that said why
_START = f"import sys; sys.path.append({ROOT!r}); from edgestill.pipeline.child import serve; serve()"
_STARTING = 60  # seconds for the interpreter and the imports
_MOST_SAID = 2000  # bytes of a child's output that are kept
_FORKS = sys.platform == "linux"  # elsewhere a process that has threads cannot safely go on after a fork


class ChildError(Exception):
    """Failure of a child to answer; `str()` is the reason, as the end of a sentence about its data: "needs more …"."""


class ChildRefused(ChildError):
    """Error raised by the function itself: it does not accept the data."""


def interpreter(*arguments: str) -> list[str]:
    """Return the command of this Python with the arguments; its imports do not begin in the current folder."""
    return [sys.executable, "-P", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Copy this process's environment for a child: safe imports, also for its children, and an absolute PYTHONPATH."""
    own = dict(os.environ) | {"PYTHONSAFEPATH": "1"} | dict(extra or {})
    if "PYTHONPATH" in own:
        named = own["PYTHONPATH"].split(os.pathsep)
        ours = [ROOT] if any(path and str(Path(path).resolve()) == ROOT for path in named) else []
        own["PYTHONPATH"] = os.pathsep.join([*ours, *(path for path in named if Path(path).is_absolute())])
    return own


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Set this process's own environment to that of `environment` within, for children that a library starts."""
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
    *arguments: str | bytes,
    memory_bytes: int = MEMORY_BYTES,
    seconds: float = SECONDS,
) -> bytes:
    """Call a function on foreign bytes in a child of bounded memory and time, and return its answer.

    Each call has a process of its own, forked (on Linux) from one that has the function's module imported already, so
    that only the first call waits for an interpreter.

    Args:
        function: `module:name` of ours; called with the data and the arguments, it returns bytes.
        memory_bytes: bound on the child's address space, beyond its size once the module is imported. Only on Linux;
            Windows and macOS have no such bound.

    Raises:
        ChildRefused: the function raised an error of its own.
        ChildError: it needed more memory or time, or its process died.
    """
    code, found, said = _SERVER.ask(function, [data, *arguments], memory_bytes, seconds)
    if code == 0:
        return found
    told = printable(said.decode("utf-8", "replace").strip())
    if code == _REFUSED:
        raise ChildRefused(told)
    if code == _BROKEN:
        raise ChildError(f"cannot be read here ({told})")
    if code == _NO_MEMORY or "bad_alloc" in told or "memory allocation of" in told or code == -signal.SIGKILL:
        raise ChildError(f"needs more than {memory_bytes / 2**20:,.0f} MiB of memory")
    if code == -getattr(signal, "SIGALRM", 0):
        raise ChildError(f"needs more than {seconds:g} s")
    raise ChildError(f"ends the process that reads it ({ended(code)})")


def ended(code: int | None) -> str:
    """Describe the end of a process in words: `was killed by SIGSEGV`, `ended with exit code 1`."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


class _Server:
    """The answering child of this process, started when it is first asked and again after it was stopped.

    Requests and replies are each a line of JSON, with the sizes of the bytes that follow it.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the child without stopping it; a forked process does so, as the child is its parent's."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._path: str | None = None

    def ask(self, function: str, parts: list[Any], memory_bytes: int, seconds: float) -> tuple[int, bytes, bytes]:
        """Call the function in the child; return (exit code, answer, other output)."""
        blobs = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        head = {
            "function": function, "memory": memory_bytes, "seconds": seconds,
            "sizes": [len(blob) for blob in blobs], "text": [isinstance(part, str) for part in parts],
        }  # fmt: skip
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # it died meanwhile; its missing reply shows that
                    process.stdin.write(json.dumps(head).encode() + b"\n")
                    for blob in blobs:
                        process.stdin.write(blob)
                    process.stdin.flush()
                if not select.select([process.stdout], [], [], seconds + _STARTING)[0]:
                    raise ChildError(f"needs more than {seconds:g} s")
                line = process.stdout.readline()
                if not line:
                    raise ChildError(f"ends the process that reads it ({ended(process.wait())})")
                reply = json.loads(line)
                return reply["code"], process.stdout.read(reply["found"]), process.stdout.read(reply["said"])
            except BaseException:  # after an interrupt its answer is half read
                self._stop()
                raise
            finally:
                if not _FORKS:
                    self._stop()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _started(self) -> "subprocess.Popen[bytes]":
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        wanted = environment(single | {"TOKENIZERS_PARALLELISM": "false", "RUST_BACKTRACE": "0"})
        if self._process is not None and (self._process.poll() is not None or self._path != wanted.get("PYTHONPATH")):
            self._stop()
        if self._process is None:
            self._path = wanted.get("PYTHONPATH")
            self._process = subprocess.Popen(
                interpreter("-c", _START), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=wanted, start_new_session=True,
            )  # fmt: skip
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # with its fork, if one is answering
            os.killpg(process.pid, signal.SIGKILL) if _FORKS else process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        process.wait()


_SERVER = _Server()
atexit.register(_SERVER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SERVER.forget)


def serve() -> None:
    """Run the child's side of `answer`: one request after the other, until the parent closes the pipe."""
    asking, answering = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's prints must not mix with answers
    while line := asking.readline():
        head = json.loads(line)
        blobs = [asking.read(size) for size in head["sizes"]]
        parts = [blob.decode() if is_text else blob for blob, is_text in zip(blobs, head["text"], strict=True)]
        del blobs
        with tempfile.TemporaryFile() as found, tempfile.TemporaryFile() as said:
            code = _served(head, parts, found, said)
            del parts
            told = {
                "code": code,
                "found": found.seek(0, os.SEEK_END),
                "said": min(said.seek(0, os.SEEK_END), _MOST_SAID),
            }
            answering.write(json.dumps(told).encode() + b"\n")
            found.seek(0)
            shutil.copyfileobj(found, answering)
            said.seek(-told["said"], os.SEEK_END)
            shutil.copyfileobj(said, answering)
            answering.flush()


def _served(head: Mapping[str, Any], parts: list[Any], found: IO[bytes], said: IO[bytes]) -> int:
    """Call the function, in a fork where the system allows; return the exit code."""
    module, name = head["function"].split(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # a fault of this installation, not of the data
        said.write(f"{type(error).__name__}: {error}".encode())
        return _BROKEN
    if not _FORKS:
        return _called(function, parts, found, said)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            _bound(head["memory"], head["seconds"])
            os._exit(_called(function, parts, found, said))
        finally:  # skips the interpreter's cleanup, which may lack memory
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _called(function: Callable[..., bytes], parts: list[Any], found: IO[bytes], said: IO[bytes]) -> int:
    try:
        found.write(function(*parts))
        found.flush()
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:
        if "bad_alloc" in str(error):  # a library's words for it
            return _NO_MEMORY
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        said.write(printable((told.strip().splitlines() or [type(error).__name__])[0])[:_MOST_SAID].encode())
        said.flush()
        return _REFUSED
    return 0


def _bound(memory: int, seconds: float) -> None:
    import resource

    signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal ends the process
    with contextlib.suppress(OSError, ValueError):  # a tighter bound is there already
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory,) * 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
