"""Starts the chain as a Prefect flow run where a person uses Prefect."""

from pathlib import Path

from flows.config import RunConfig
from flows.outcome import Outcome
from pipeline.errors import MissingDependencyError


def uses_prefect(wanted: bool | None) -> bool:
    """What the person said; else whether PREFECT_API_URL, or the active Prefect profile, names a server.

    Raises:
        MissingDependencyError: Prefect is wanted and not installed.
    """
    if wanted is False:
        return False
    try:
        from prefect.settings import PREFECT_API_URL
    except ImportError as error:
        if wanted is None:
            return False
        raise MissingDependencyError("--prefect needs Prefect: pip install 'prefect>=3.8.8,<3.9'") from error
    return wanted is True or PREFECT_API_URL.value() is not None


def as_flow(config: RunConfig | None, out: Path, resume: Path | None = None) -> Outcome:
    """One flow run in this process; without a server, Prefect starts a temporary one (some ten seconds)."""
    from flows.compress import compress

    outcome: Outcome = compress(config or RunConfig(), str(out), str(resume) if resume else None)
    return outcome
