"""Places of targets as a person writes them: here, ssh://USER@HOST[:PORT], adb:SERIAL, folder:PATH."""

import re
from typing import Literal, NamedTuple

from edgestill.pipeline.errors import printable

_WAYS = "write here, ssh://USER@HOST[:PORT], adb:SERIAL or folder:PATH"
_SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\])(?::(?P<port>[0-9]{1,5}))?/?\Z"
)
_ADB = re.compile(r"adb:(?P<serial>[A-Za-z0-9][A-Za-z0-9._:-]{0,99})\Z")


class Place(NamedTuple):
    scheme: Literal["here", "ssh", "adb", "folder"]
    user: str = ""  # of ssh; empty: as ssh's own configuration says
    host: str = ""
    port: int | None = None
    serial: str = ""
    path: str = ""


def place_of(where: str) -> Place:
    """Read a place.

    Raises:
        ValueError: it is none; says how to write one.
    """
    if where == "here":
        return Place("here")
    if where.startswith("folder:") and where[7:].strip() and "\0" not in where:
        return Place("folder", path=where[7:])
    found = _ADB.match(where)
    if found:
        return Place("adb", serial=found["serial"])
    found = _SSH.match(where)
    if not found:
        raise ValueError(f"{printable(where)[:100]!r} is no place of a target; {_WAYS}")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65_535:
        raise ValueError(f"{where!r}: ports are 1 to 65535")
    return Place("ssh", user=found["user"] or "", host=found["host"].strip("[]"), port=port)
