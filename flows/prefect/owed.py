"""Last states of flow runs, kept on disk until the Prefect server has them.

A flow run leaves its end here before the server is told, and the note goes once it was told. If the server is away
meanwhile, `edgestill serve`, `edgestill ui` and the next flow run of this machine set the state right later.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs.checkpoint import write_atomic

_FOLDER = "edgestill-owed"
_KEYS = {"url", "message", "is_done", "process"}


def owe(flow_run: str, message: str, is_done: bool = True) -> None:
    """Note the end of a flow run on a server that outlives this process; a temporary one is owed nothing."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    note = {"url": url, "message": message, "is_done": is_done, "process": os.getpid()}
    write_atomic(folder / f"{UUID(flow_run)}.json", json.dumps(note).encode())


def forget(flow_run: str) -> None:
    """Remove the note of a flow run whose end the server knows."""
    (_folder() / f"{UUID(flow_run)}.json").unlink(missing_ok=True)


async def settle(client: Any) -> int:
    """Tell the server the ends that it missed, and return their number; a process at work tells its own.

    Args:
        client: Prefect's, of the server.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Completed, Failed

    told = 0
    for path, note in _notes(str(client.api_url)):
        try:
            run = await client.read_flow_run(UUID(path.stem))
            if run.state is not None and not run.state.is_final():
                message = f"{note['message']} (told late)"
                end: Any = Completed(message=message) if note["is_done"] else Failed(message=message)
                await client.set_flow_run_state(run.id, end, force=True)
                told += 1
        except ObjectNotFound:
            pass
        path.unlink(missing_ok=True)
    return told


def settle_with(url: str) -> None:
    """Settle with the server at an address, from a process that has no client of it; if that fails, others will."""
    from prefect.client.orchestration import PrefectClient
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING

    secret = PREFECT_API_AUTH_STRING.value() or PREFECT_SERVER_API_AUTH_STRING.value()

    async def told() -> None:
        async with PrefectClient(url, auth_string=secret) as client:
            await settle(client)

    with nicety("", []):
        asyncio.run(told())


def _notes(url: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(_folder().glob("*.json")):
        try:
            note = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(note, dict) or not note.keys() >= _KEYS:  # damaged
            continue
        if str(note["url"]).rstrip("/") == url.rstrip("/") and not _is_at_work(note):
            yield path, note


def _is_at_work(note: dict[str, Any]) -> bool:
    """True if the process that left the note still lives: it tells the server itself."""
    try:
        os.kill(int(note["process"]), 0)
    except (ValueError, TypeError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _folder() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect") / _FOLDER
