"""Runs a job on a device by an open connection; every step looks first at what is there, so that it can be repeated.

All lies in one folder: `files/` holds what was sent, by digest, `jobs/` a folder for each measurement. A measurement
goes on there without us, and its end is found by its folder's name, which is a digest of its content.
"""

import shlex
import time
from collections.abc import Callable, Iterable, Sequence

from edgestill.export.bundle.scripts.join import PROFILE
from edgestill.export.targets.connection import Connection
from edgestill.export.targets.job import PROFILED, Job, sha256
from edgestill.export.targets.probe import TargetFacts
from edgestill.pipeline.errors import DroppedOut, ExportError, TargetError, printable
from edgestill.pipeline.figures import listing

MARKER = ".edgestill"  # in our folder, so that no other is ever removed
POLL_S = 2.0
_KILL = 'test -f pid && ! test -e code && kill -9 -"$(cat pid)" 2>/dev/null;'  # an ended one's number may be another's
_INSTALL_S = 1800.0
_START = (  # in a session of its own: it outlives the connection, and can be ended as a whole
    "import os,subprocess,sys;"
    "p=subprocess.Popen(['/bin/sh','-c',sys.argv[1]] if os.path.exists('/bin/sh') else ['sh','-c',sys.argv[1]],"
    "start_new_session=True,stdin=subprocess.DEVNULL,stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
    "open('pid','w').write(str(p.pid))"
)


def run_job(
    connection: Connection, facts: TargetFacts, job: Job, limit_s: float, problems: Sequence[str],
    say: Callable[[str], None],
) -> bytes:  # fmt: skip
    """Send what is not there, measure, and fetch the profile; the job's folder stays until `forget`.

    Args:
        problems: what is in the way of beginning now, a clause each.

    Raises:
        DroppedOut: the link broke; the same call goes on.
        TargetError: the device cannot do it; nothing of the job is left there.
        ExportError: the runtime there refuses a file; nothing of the job is left there.
    """
    there = _Folder(connection, facts.root, job)
    try:
        if not there.is_started():
            if problems:
                raise TargetError("; ".join(problems))
            there.prepare(say)
            there.start(facts.interpreter)
            say(f"measuring, for {job.expected_s:.0f} s at least")
        there.wait(limit_s)
        return connection.get(f"{there.folder}/{PROFILED}")
    except DroppedOut:
        raise
    except (TargetError, ExportError):
        there.remove(job.files.values())
        raise


def forget(connection: Connection, facts: TargetFacts, job: Job, keep: bool) -> None:
    """Remove a job's folder and, unless `keep` is set, its files."""
    _Folder(connection, facts.root, job).remove(() if keep else job.files.values())


def install(connection: Connection, facts: TargetFacts, packages: Sequence[str]) -> None:
    """Make an environment with these packages in edgestill's folder there; nothing of the current folder runs (-I).

    Raises:
        TargetError: there is no Python, or pip fails; says pip's last line.
    """
    if not facts.interpreter:
        raise TargetError("it has no Python to install libraries for; install python3 with venv there")
    root = shlex.quote(facts.root)
    venv = f"{root}/venv"
    done = connection.run(
        f"mkdir -p {root} && : > {root}/{MARKER} && {shlex.quote(facts.interpreter)} -I -m venv {venv} "
        f"&& {venv}/bin/python -I -m pip install --no-input --disable-pip-version-check "
        f"--upgrade {shlex.join(packages)}",
        _INSTALL_S,
    )
    if done.code:
        connection.run(f"rm -rf {venv}")
        raise TargetError(f"{listing([*packages])} cannot be installed there: {done.said}")


def clean(connection: Connection, facts: TargetFacts) -> bool:
    """Remove the one folder there, ending what runs in it; return False if there is none."""
    root = shlex.quote(facts.root)
    done = connection.run(
        f"test -e {root}/{MARKER} || exit 9; "
        f'for job in {root}/jobs/*; do cd "$job" 2>/dev/null && {{ {_KILL} cd /; }}; done; rm -rf {root}'
    )
    if done.code not in (0, 9):
        raise TargetError(f"{facts.root} there cannot be removed: {done.said}")
    return done.code == 0


class _Folder:
    """The folder of a job on the device."""

    def __init__(self, connection: Connection, root: str, job: Job) -> None:
        self._connection, self._job = connection, job
        self._files, self.folder = f"{root}/files", f"{root}/jobs/{job.key}"
        self._root = root

    def is_started(self) -> bool:
        """True if it runs there or has ended; one that is gone without an end is begun again."""
        state = self._state()
        if state == "gone":
            self._run(f"rm -rf {shlex.quote(self.folder)}")
        return state in ("ended", "runs")

    def prepare(self, say: Callable[[str], None]) -> None:
        """Send the files that the device lacks, and fill the job's folder."""
        files, folder = shlex.quote(self._files), shlex.quote(self.folder)
        done = self._run(f"mkdir -p {files} {folder} && : > {shlex.quote(self._root)}/{MARKER} && ls {files}")
        known = set(done.split())
        for name, data in self._job.files.items():
            digest = sha256(data)
            if digest not in known:
                say(f"sending {name}, {len(data):,} bytes")
                self._send(digest, data)
                known.add(digest)
        parts = [
            f"{{ ln -f {files}/{sha256(data)} {folder}/{shlex.quote(name)} 2>/dev/null"
            f" || cp {files}/{sha256(data)} {folder}/{shlex.quote(name)}; }}"
            for name, data in self._job.files.items()
        ]
        self._run(" && ".join(parts))

    def start(self, python: str) -> None:
        script = shlex.join([python, "-B", PROFILE, *self._job.arguments])
        command = f"{script} > said 2>&1; echo $? > code.part; mv code.part code"
        launch = shlex.join([python, "-c", _START, command])
        self._run(f"cd {shlex.quote(self.folder)} && test ! -e pid && {launch}")

    def wait(self, limit_s: float) -> None:
        """Wait for the end, without asking before it can be there: every question takes some of the device's time.

        Raises:
            DroppedOut: it is gone.
            TargetError: it takes too long.
            ExportError: it ended with an error.
        """
        begun, pause = time.monotonic(), min(self._job.expected_s, limit_s)
        while True:
            time.sleep(pause)
            pause, state = POLL_S, self._state()
            if state == "ended":
                break
            if state != "runs":
                raise DroppedOut("the measurement there was ended, as by a restart of the device")
            if time.monotonic() - begun > limit_s:
                raise TargetError(
                    f"it is slow: no end after {limit_s:g} s; raise its limit_s, lower profile.timing.duration_s, or "
                    "measure fewer formats"
                )
        code, _, said = self._run(f"cd {shlex.quote(self.folder)} && cat code && tail -n 5 said").partition("\n")
        if code.strip() != "0":
            raise ExportError(_last(said.splitlines()))

    def remove(self, files: Iterable[bytes]) -> None:
        """End what runs, and remove the job's folder, what was sent in part, and these files."""
        folder, names = shlex.quote(self.folder), [f"{self._files}/{sha256(data)}" for data in files]
        self._run(
            f"cd {folder} 2>/dev/null && {{ {_KILL} cd /; }}; "
            f"rm -rf {folder} {shlex.quote(self._files)}/*.part {shlex.join(names)}; "
            f"rmdir {shlex.quote(self._root)}/jobs 2>/dev/null; true"
        )

    def _send(self, digest: str, data: bytes) -> None:
        path = f"{self._files}/{digest}"
        self._connection.put(data, f"{path}.part")
        there = shlex.quote(path)
        self._run(f'test "$(wc -c < {there}.part)" -eq {len(data)} && mv {there}.part {there}')

    def _state(self) -> str:
        return self._run(
            f"cd {shlex.quote(self.folder)} 2>/dev/null || {{ echo none; exit 0; }}; "
            "if test -e code; then echo ended; elif ! test -e pid; then echo none; "
            'elif kill -0 "$(cat pid)" 2>/dev/null && ! grep -q "^State:.*Z" "/proc/$(cat pid)/status" 2>/dev/null; '
            "then echo runs; "
            "elif sleep 0.2; test -e code; then echo ended; else echo gone; fi"
        ).strip()

    def _run(self, command: str) -> str:
        done = self._connection.run(command)
        if done.code:
            raise TargetError(f"{self._root} there cannot be used: {done.said}")
        return done.text


def _last(lines: list[str]) -> str:
    """Return the script's own error, or else its last line."""
    errors = [line for line in lines if line.startswith("error: ")]
    words = (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")
    return f"it cannot measure: {printable(words)[:400]}"
