"""This machine as a device."""

import subprocess

from edgestill.export.targets.connection import COMMAND_S, Connection, Ran
from edgestill.pipeline.child import environment
from edgestill.pipeline.errors import DroppedOut


class HereConnection(Connection):
    def run(self, command: str, seconds: float = COMMAND_S, stdin: bytes = b"") -> Ran:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command], env=environment(), input=stdin, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise DroppedOut(f"no answer within {seconds:g} s") from None
        return Ran(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        pass
