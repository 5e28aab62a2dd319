"""Conditions for a Prefect flow run: Prefect installed, a server that answers, and a folder without surprises."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from edgestill.flows.prefect.auth import carry
from edgestill.pipeline.errors import MissingDependencyError, UserError


def uses_prefect(wanted: bool | None) -> bool:
    """Return the user's choice; without one, True if PREFECT_API_URL is set. Prefect is not imported to find out.

    Raises:
        MissingDependencyError: Prefect is wanted and not installed.
    """
    if wanted is None:
        wanted = bool(os.environ.get("PREFECT_API_URL"))
    if wanted:
        require_prefect()
    return wanted


def require_prefect() -> None:
    """Refuse to go on without Prefect.

    Raises:
        MissingDependencyError: Prefect is not installed.
    """
    try:
        found = importlib.util.find_spec("prefect")
    except ValueError:  # Python's answer for a module made unimportable
        found = None
    if found is None:
        raise MissingDependencyError("Prefect is not installed: pip install 'prefect>=3.8.8,<3.9', or use --no-prefect")


def require_server(url: str) -> None:
    """Refuse to go on without a Prefect server at the address.

    Raises:
        UserError: nothing answers there.
    """
    if not _answers(url):
        raise UserError(f"no Prefect server answers at {url}; start it with `edgestill ui`, or mend PREFECT_API_URL")


def require_leave(url: str) -> None:
    """Refuse to go on without a Prefect server at the address that lets this process in.

    Call it in Prefect's folder, as it imports Prefect.

    Raises:
        UserError: nothing answers there, or it asks for another password.
    """
    require_server(url)
    if not _lets_in(url):
        raise UserError(
            f"the Prefect server at {url} asks for another user and password: set PREFECT_API_AUTH_STRING="
            "USER:PASSWORD; those of `edgestill ui --auth` are sent by commands of its own account"
        )


def server_answers() -> bool:
    """True unless a Prefect server is named and does not answer."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return not url or _answers(url)


def _answers(url: str) -> bool:
    import httpx  # Prefect's own client

    try:
        httpx.get(f"{url}/health", timeout=3)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True


def _lets_in(url: str) -> bool:
    """True unless the server refuses this process's user and password; a busy server refuses nobody."""
    import httpx
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    if PREFECT_API_KEY.value() is not None:
        return True
    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")
    try:
        asked = httpx.get(f"{url}/admin/version", timeout=10, auth=(user, password) if user else None)
    except httpx.HTTPError:
        return True
    return asked.status_code != httpx.codes.UNAUTHORIZED


@contextlib.contextmanager
def in_prefects_folder() -> Iterator[None]:
    """Work in Prefect's own folder, so it reads and runs nothing from the user's current one.

    Prefect reads settings from the current folder (.env, prefect.toml, pyproject.toml), among them a logging
    configuration able to call any function by name, and its flow runs import from there.

    Paths must be absolute before; those of the environment are made so here.
    """
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").absolute()
    home.mkdir(parents=True, exist_ok=True)
    for name in ("PREFECT_HOME", "EDGESTILL_CACHE", "XDG_CACHE_HOME"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())
    carry(home)
    with contextlib.chdir(home):
        yield
