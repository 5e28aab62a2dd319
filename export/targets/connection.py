"""Contract of a connection to a device: commands of its shell, files to it and from it, all in bounded time."""

import shlex
from abc import ABC, abstractmethod
from types import TracebackType
from typing import NamedTuple

from edgestill.pipeline.errors import TargetError, printable

COMMAND_S = 60.0  # for a short command; a slow board's first Python takes some of it
MOST_BYTES = 1 << 26  # of a command's output: a device must not fill our memory
_BYTES_A_SECOND = 50_000  # the slowest link that a file is waited for on


class Ran(NamedTuple):
    """End of a command on the device."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "replace")

    @property
    def said(self) -> str:
        """Last line that it said, errors first, fit to be shown."""
        lines = (self.err.decode("utf-8", "replace").strip() or self.text.strip()).splitlines()
        return printable(lines[-1])[:300] if lines else "it said nothing"


class Connection(ABC):
    """An open connection. A broken link raises DroppedOut; whatever else goes wrong, TargetError."""

    base: str = ""  # folder there for edgestill's folder; empty: the home folder

    @abstractmethod
    def run(self, command: str, seconds: float = COMMAND_S, stdin: bytes = b"") -> Ran:
        """Run a command of the POSIX shell there.

        Raises:
            DroppedOut: the link broke, or it did not end in time.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""

    def put(self, data: bytes, path: str) -> None:
        """Write a file there.

        Raises:
            DroppedOut, TargetError: it could not be written; says why.
        """
        done = self.run(f"cat > {shlex.quote(path)}", seconds_for(len(data)), data)
        if done.code:
            raise TargetError(f"{path} cannot be written there: {done.said}")

    def get(self, path: str) -> bytes:
        """Read a file of at most MOST_BYTES.

        Raises:
            DroppedOut, TargetError: it cannot be read.
        """
        done = self.run(f"cat {shlex.quote(path)}", seconds_for(MOST_BYTES))
        if done.code:
            raise TargetError(f"{path} cannot be read there: {done.said}")
        return done.out

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def seconds_for(size_bytes: int) -> float:
    """Seconds to wait for a file of this size."""
    return COMMAND_S + size_bytes / _BYTES_A_SECOND
