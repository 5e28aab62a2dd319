"""Conditions for a Prefect flow run: Prefect installed, a server that answers, and a folder without surprises."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

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
    import httpx  # Prefect's own client

    try:
        httpx.get(f"{url}/health", timeout=3)
    except (httpx.HTTPError, httpx.InvalidURL):
        raise UserError(
            f"no Prefect server answers at {url}; start it with `edgestill ui`, or mend PREFECT_API_URL"
        ) from None


def server_answers() -> bool:
    """True unless a Prefect server is named and does not answer."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return True
    try:
        require_server(url)
    except UserError:
        return False
    return True


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
    with contextlib.chdir(home):
        yield
