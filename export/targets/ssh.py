"""A device by SSH. Host keys are always checked, logins are by key, and the device's shell does all the rest."""

import asyncio
import contextlib
import getpass
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from edgestill.export.targets.connection import COMMAND_S, MOST_BYTES, Connection, Ran
from edgestill.export.targets.places import Place
from edgestill.pipeline.errors import DroppedOut, MissingDependencyError, TargetError, first_line

T = TypeVar("T")
CONNECT_S = 20.0
_ALIVE_S, _ALIVE_COUNT = 5, 4  # a link that is silent for so long is broken
_MACHINE_WIDE = Path("/etc/ssh/ssh_known_hosts")


class SshConnection(Connection):
    """An open connection; asyncssh's loop has a thread of its own, so that callers may have loops of theirs."""

    def __init__(self, place: Place, identity: Path | None, known_hosts: Path | None) -> None:
        try:
            import asyncssh
        except ImportError:
            raise MissingDependencyError("asyncssh is not installed; pip install 'edgestill[ssh]'") from None
        self._asyncssh: Any = asyncssh
        self._place, self._identity, self._known = place, identity, known_hosts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edgestill-ssh", daemon=True)
        self._thread.start()
        self._connection: Any = None
        try:
            self._connection = self._open()
        except BaseException:
            self.close()
            raise

    def run(self, command: str, seconds: float = COMMAND_S, stdin: bytes = b"") -> Ran:
        try:
            return self._do(self._run(command, stdin), seconds)
        except TimeoutError:
            raise DroppedOut(f"no answer within {seconds:g} s") from None
        except (self._asyncssh.Error, OSError) as error:
            raise DroppedOut(f"the connection broke: {_words(error)}") from None

    def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._connection is not None:
                self._connection.abort() if self._connection.is_closed() else self._do(self._end(), 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        with contextlib.suppress(Exception):
            self._loop.close()

    def _open(self) -> Any:
        if self._identity is not None and not self._identity.is_file():
            raise TargetError(f"there is no private key {self._identity}")
        try:
            return self._do(self._connect(), 2 * CONNECT_S)
        except TimeoutError:
            raise DroppedOut(f"{self._place.host} does not answer within {2 * CONNECT_S:g} s") from None
        except self._asyncssh.HostKeyNotVerifiable as error:
            raise TargetError(self._unverified(error)) from None
        except self._asyncssh.PermissionDenied:
            raise TargetError(self._denied()) from None
        except (self._asyncssh.KeyImportError, self._asyncssh.KeyEncryptionError) as error:
            raise TargetError(f"the private key cannot be used ({_words(error)}); give another, or an agent") from None
        except self._asyncssh.ConfigParseError as error:
            raise TargetError(f"ssh's configuration cannot be read: {_words(error)}") from None
        except (self._asyncssh.Error, OSError) as error:
            raise DroppedOut(f"{self._place.host} cannot be reached: {_words(error)}") from None

    async def _connect(self) -> Any:
        place = self._place
        given: dict[str, Any] = {}
        given |= {"port": place.port} if place.port else {}
        given |= {"username": place.user} if place.user else {}
        given |= {"client_keys": [str(self._identity)]} if self._identity else {}
        return await self._asyncssh.connect(
            place.host,
            known_hosts=self._known_hosts(),  # always given: its default lets ssh's configuration turn the check off
            preferred_auth="publickey",
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            keepalive_interval=_ALIVE_S,
            keepalive_count_max=_ALIVE_COUNT,
            **given,
        )

    async def _run(self, command: str, stdin: bytes) -> Ran:
        process = await self._connection.create_process(command, encoding=None)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionError):  # it may end without reading all
                process.stdin.write(stdin)
                process.stdin.write_eof()
            out, err = await asyncio.gather(_bounded(process.stdout), _bounded(process.stderr))
            await process.wait_closed()
        finally:
            process.close()
        if process.returncode is None:
            raise DroppedOut("the connection broke in the middle of a command")
        return Ran(process.returncode, out, err)

    async def _end(self) -> None:
        self._connection.close()
        await self._connection.wait_closed()

    def _do(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop)
        try:
            return future.result(seconds + 10)
        except BaseException:
            future.cancel()
            raise

    def _known_hosts(self) -> list[str] | bytes:
        files = [self._known_file, _MACHINE_WIDE]
        return [str(path) for path in files if path.is_file()] or b""

    @property
    def _known_file(self) -> Path:
        return self._known or Path.home() / ".ssh" / "known_hosts"

    def _unverified(self, error: Exception) -> str:
        """Tell an unknown host key from one that differs from the known one."""
        place, port = self._place, self._place.port or 22
        shown = "unknown"
        with contextlib.suppress(Exception):
            key = self._do(self._asyncssh.get_server_host_key(place.host, port), CONNECT_S)
            shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
        known = ()
        with contextlib.suppress(Exception):
            known = self._asyncssh.match_known_hosts(self._known_hosts(), place.host, "", port)[0]
        if known:
            return (
                f"{place.host} shows another host key ({shown}) than {self._known_file} knows: the device was set up "
                "anew, or something else answers; if you know that it was, remove the old key with `ssh-keygen -R "
                f"{_named(place.host, port)}`"
            )
        return (
            f"{place.host} shows a host key that {self._known_file} does not know ({shown}); compare it on the device "
            "(`for key in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $key; done`), then accept it with "
            f"`ssh-keyscan -p {port} {place.host} >> {self._known_file}`"
        )

    def _denied(self) -> str:
        place = self._place
        at = f"{place.user or getpass.getuser()}@{place.host}"
        return f"{place.host} lets no key of yours in; `ssh-copy-id -p {place.port or 22} {at}` brings it one"


def _named(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


async def _bounded(stream: Any) -> bytes:
    parts, size = [], 0
    while part := await stream.read(1 << 16):
        size += len(part)
        if size > MOST_BYTES:
            raise DroppedOut(f"it sends more than {MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _words(error: BaseException) -> str:
    return first_line(error, type(error).__name__)[:200]
