"""Opens the connection to a target's place; a new kind of place has a line here."""

from collections.abc import Callable

from edgestill.export.targets.adb import AdbConnection
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.connection import Connection
from edgestill.export.targets.here import HereConnection
from edgestill.export.targets.places import place_of
from edgestill.export.targets.ssh import SshConnection
from edgestill.pipeline.errors import TargetError

_KINDS: dict[str, Callable[[TargetConfig], Connection]] = {
    "here": lambda target: HereConnection(),
    "ssh": lambda target: SshConnection(place_of(target.where), target.identity, target.known_hosts),
    "adb": lambda target: AdbConnection(place_of(target.where).serial),
}


def connect(target: TargetConfig) -> Connection:
    """Open a connection.

    Raises:
        DroppedOut: it cannot be reached now.
        TargetError: it can be reached and refuses, or it is a folder that a person carries.
        MissingDependencyError: the client is not installed.
    """
    scheme = place_of(target.where).scheme
    if scheme not in _KINDS:
        raise TargetError(f"{target.name} is a folder that a person carries; nothing there can be asked")
    return _KINDS[scheme](target)
