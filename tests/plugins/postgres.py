"""A PostgreSQL server of a test, started as an unprivileged user in a folder of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PASSWORD = "planted-Secret_77"  # looked for in everything that a run leaves


def binaries() -> Path | None:
    """Folder of `initdb` and `postgres`, where Debian has them or on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = [Path(path) for path in [shutil.which("initdb")] if path]
    return next((path.parent for path in (*reversed(found), *named) if (path.parent / "postgres").exists()), None)


class Server:
    """Server on loopback with the user `tuner`, whose password is PASSWORD, and the database `studies`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._user = None if os.geteuid() else next(n for n in ("postgres", "nobody") if n in _users())
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        if self._user:
            shutil.chown(folder, self._user)
            shutil.chown(folder / "password", self._user)
        secret = ("-A", "scram-sha-256", "--pwfile", folder / "password")
        self._call("initdb", "-D", folder / "data", "-U", "tuner", *secret, "--no-sync", "--locale=C", "-E", "UTF8")
        self.start()
        import psycopg

        with psycopg.connect(f"{self.address('postgres')}", autocommit=True) as connection:
            connection.execute("CREATE DATABASE studies")

    def address(self, database: str = "studies", password: str | None = PASSWORD) -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://tuner{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = self.folder / "log"
        self._call("pg_ctl", "-D", self.folder / "data", "-w", "-t", "60", "-l", log, "-o", options, "start")

    def kill(self) -> None:
        """End the server at once, as a machine that loses its power does."""
        file = self.folder / "data" / "postmaster.pid"
        pid = int(file.read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids = (pid, *map(int, children))
        for each in pids:
            os.kill(each, signal.SIGKILL)
        while any(_state(each) != "Z" for each in pids):  # nobody may be there to ask how it ended
            time.sleep(0.02)
        file.unlink()  # a zombie of that number would pass for a running server

    def _call(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        subprocess.run(
            command, check=True, user=self._user, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def postgres():
    """A running server; a test may kill it if it starts it again."""
    pytest.importorskip("psycopg")
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="edgestill-postgres-"))
    server = Server(folder, programs)
    yield server
    server.kill()
    shutil.rmtree(folder)


def _users() -> set[str]:
    return {user.pw_name for user in pwd.getpwall()}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
