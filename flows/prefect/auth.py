"""Prefect's basic auth by one setting: a user and a password for UI and API, which this account's commands carry.

`edgestill ui --auth` makes them and keeps them in Prefect's folder, for this account alone. Other commands of the
account send them to servers of this machine, and to no other. Prefect's own variables count more.
"""

import contextlib
import ipaddress
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

_FILE = "edgestill-auth"  # in Prefect's folder, USER:PASSWORD
_SERVER, _CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
_USER, _BYTES = "edgestill", 24


def guard(folder: Path) -> str:
    """Have the server that starts in this process ask for a password; return where the password is.

    It is the environment's, or that of an earlier server of this account, or a new one. Call it before Prefect is
    imported, as Prefect reads the environment once.
    """
    given = next((name for name in (_SERVER, _CLIENT) if os.environ.get(name)), None)
    kept = folder / _FILE
    if given is None and not kept.exists():
        _keep(kept, f"{_USER}:{secrets.token_urlsafe(_BYTES)}")
    secret = os.environ[given] if given else kept.read_text(encoding="utf-8").strip()
    os.environ[_SERVER] = os.environ[_CLIENT] = secret
    return given or str(kept)


def carry(folder: Path) -> None:
    """Have this process send the kept password to the server of this machine that PREFECT_API_URL names."""
    host = urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname
    kept = folder / _FILE
    if host and is_loopback(host) and not os.environ.get(_CLIENT) and kept.is_file():
        os.environ[_CLIENT] = kept.read_text(encoding="utf-8").strip()


def is_loopback(host: str) -> bool:
    """True if only this machine reaches the address."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def _keep(path: Path, secret: str) -> None:
    """Write a file that no other account reads, at no moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{secret}\n")
