"""Start the chain as a Prefect flow run, for users of Prefect."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from edgestill.flows.config.model import RunConfig
from edgestill.flows.outcome import Outcome
from edgestill.flows.stages.results import RankCheckResult
from edgestill.pipeline.errors import MissingDependencyError, UserError

# Settings of the temporary server, started by Prefect where there is none: it answers no page of a browser.
_TEMPORARY = {
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
}


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


def as_flow(config: RunConfig | None, out: Path, resume: Path | None = None) -> Outcome | RankCheckResult:
    """Run the chain as one flow run in this process; without a server, Prefect starts a temporary one (some 10 s).

    Raises:
        UserError: a server is named and does not answer.
    """
    for name, value in _TEMPORARY.items():
        os.environ.setdefault(name, value)
    parameters = (config or RunConfig(), str(out.absolute()), str(resume.absolute()) if resume else None)
    with in_prefects_folder():
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
        if url:
            require_server(url)
        from edgestill.flows.prefect.flow import compress

        outcome: Outcome | RankCheckResult = compress(*parameters)
    return outcome
