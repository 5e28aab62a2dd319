"""An Android device by the platform tools' `adb`, which must be on the PATH and allowed by the device."""

import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgestill.export.targets.connection import COMMAND_S, MOST_BYTES, Connection, Ran, seconds_for
from edgestill.pipeline.errors import DroppedOut, MissingDependencyError, TargetError, printable
from edgestill.pipeline.foreign import read_bounded

_END = re.compile(rb"\n?edgestill-ended:(\d{1,3})\r?\n?\Z")
_SIZE = re.compile(r"[0-9]{1,18}")
_LAST_S = 5.0  # seconds for what adb has said when it ended
_GONE = ("not found", "offline", "no devices", "device still", "closed", "protocol fault", "cannot connect to daemon")
_STATES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "plug it in again, or `adb reconnect`",
    "no permissions": "allow USB access (udev rules; `adb devices` says where to read)",
    "recovery": "start it as usual", "sideload": "start it as usual", "bootloader": "start it as usual",
}  # fmt: skip


class AdbConnection(Connection):
    """Calls `adb`; each call is a connection of its own.

    Old devices do not pass an exit code on, so that the shell prints it. Its absence is a broken link.
    """

    base = "/data/local/tmp"

    def __init__(self, serial: str) -> None:
        found = shutil.which("adb")
        if found is None:
            raise MissingDependencyError("adb is not on the PATH; install Android's platform tools (adb)")
        self._adb, self._serial = found, serial
        self._require_ready()

    def run(self, command: str, seconds: float = COMMAND_S, stdin: bytes = b"") -> Ran:
        if stdin:  # `adb shell` passes standard input on only where the device knows its newer protocol
            raise TargetError("adb passes no standard input on; push a file")
        done = self._call(["shell", f"({command}); code=$?; echo; echo edgestill-ended:$code"], seconds)
        end = _END.search(done.out)
        if end is None:
            raise DroppedOut(f"adb: {done.said}")
        return Ran(int(end[1]), done.out[: end.start()], done.err)

    def close(self) -> None:
        pass

    def put(self, data: bytes, path: str) -> None:
        with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
            local = Path(folder) / "file"
            local.write_bytes(data)
            self._copy(["push", str(local), path], seconds_for(len(data)))

    def get(self, path: str) -> bytes:
        size = self.run(f"wc -c < {shlex.quote(path)}")
        if size.code or not _SIZE.fullmatch(size.text.strip()):
            raise TargetError(f"{path} cannot be read there: {size.said}")
        if int(size.text) > MOST_BYTES:
            raise TargetError(f"{path} there has {int(size.text):,} bytes; at most {MOST_BYTES:,} are read")
        with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
            local = Path(folder) / "file"
            self._copy(["pull", path, str(local)], seconds_for(int(size.text)))
            return read_bounded(local, MOST_BYTES, TargetError)  # it may send more than it said

    def _copy(self, arguments: Sequence[str], seconds: float) -> None:
        done = self._call(arguments, seconds)
        if done.code == 0:
            return
        if any(sign in done.said for sign in _GONE) and "couldn't create" not in done.said:
            raise DroppedOut(f"adb: {done.said}")
        raise TargetError(f"adb {arguments[0]}: {done.said}")

    def _call(self, arguments: Sequence[str], seconds: float) -> Ran:
        process = subprocess.Popen(
            [self._adb, "-s", self._serial, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        streams = [_Stream(process, stream) for stream in (process.stdout, process.stderr) if stream is not None]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DroppedOut(f"adb: no answer within {seconds:g} s") from None
        finally:
            process.kill()
            process.wait()
        return Ran(code, *(stream.read() for stream in streams))

    def _require_ready(self) -> None:
        states = listed(self._call(["devices", "-l"], COMMAND_S).text)
        state = states.get(self._serial)
        if state == "device":
            return
        if state is None:
            known = ", ".join(printable(serial)[:60] for serial in states) or "none"
            raise DroppedOut(f"adb sees no device {self._serial}; it sees {known}; plug it in, or `adb connect`")
        way_out = next((way for name, way in _STATES.items() if state.startswith(name)), "see `adb devices -l`")
        kind = DroppedOut if state == "offline" else TargetError
        raise kind(f"adb says that {self._serial} is {printable(state)[:60]}: {way_out}")


class _Stream:
    """An output of adb, read beside its other one; adb is ended where it is longer than MOST_BYTES."""

    def __init__(self, process: "subprocess.Popen[bytes]", stream: IO[bytes]) -> None:
        self._process, self._stream, self._data = process, stream, b""
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def read(self) -> bytes:
        """Return all of it, when adb has ended.

        Raises:
            DroppedOut: it is too long.
        """
        self._thread.join(_LAST_S)  # a server that adb began may hold it open
        if len(self._data) > MOST_BYTES:
            raise DroppedOut(f"adb: it sends more than {MOST_BYTES:,} bytes")
        return self._data

    def _collect(self) -> None:
        with self._stream as stream:
            while len(self._data) <= MOST_BYTES and (block := stream.read1(1 << 16)):  # type: ignore[attr-defined]
                self._data += block
        if len(self._data) > MOST_BYTES:
            self._process.kill()


def listed(text: str) -> dict[str, str]:
    """Read `adb devices -l`: each device's serial and state."""
    found = {}
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if rest and not line.startswith(("List of devices", "*", "adb ")):
            words = rest.strip()
            found[serial] = "no permissions" if words.startswith("no permissions") else words.split()[0]
    return found
