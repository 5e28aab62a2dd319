"""Refusal of a bad run form by the server of `edgestill ui`, before a run is made, in the command line's words.

Prefect's own check knows the form's types, bounds and choices. It does not know how settings belong together, and it
says things in its own way.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from edgestill.flows.config.form import apply
from edgestill.flows.config.loading import validated
from edgestill.flows.prefect.deployments import TAG
from edgestill.pipeline.errors import ConfigError

_CREATE = re.compile(r"(?:/api)?/deployments/([0-9a-f-]{36})/create_flow_run")
_MOST_BYTES = 1_000_000


class RefusesBadForms:
    """An ASGI application behind a check of the forms that start runs."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = _CREATE.fullmatch(scope.get("path", "")) if scope["type"] == "http" else None
        if asked is None or scope["method"] != "POST":
            await self._application(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body") and sum(len(m.get("body", b"")) for m in messages) < _MOST_BYTES:
            messages.append(await receive())
        problem = await self._problem(asked[1], b"".join(m.get("body", b"") for m in messages), scope["headers"])
        if problem is not None:
            await _answer(send, problem)
            return

        async def again() -> Any:
            return messages.pop(0) if messages else await receive()

        await self._application(scope, again, send)

    async def _problem(self, deployment: str, body: bytes, headers: Any) -> str | None:
        """Return the sentence against a form; None for a fitting one, and for what is Prefect's to refuse."""
        import httpx

        try:
            given = json.loads(body or b"{}").get("parameters") or {}
            transport = httpx.ASGITransport(self._application)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                kept = {k.decode(): v.decode() for k, v in headers if k.lower() in (b"host", b"authorization")}
                found = (await client.get(f"/api/deployments/{deployment}", headers=kept)).json()
            if TAG not in found["tags"]:
                return None
            return refused({**found["parameters"], **given})
        except (ValueError, AttributeError, KeyError, TypeError, httpx.HTTPError):
            return None


def refused(parameters: Mapping[str, Any]) -> str | None:
    """Return the command line's sentences on the parameters of a new run; None if they fit."""
    if "config" not in parameters:
        return None
    try:
        apply(validated(parameters["config"], check_files=False), parameters.get("settings") or {}, check_files=False)
    except ConfigError as error:
        return str(error)
    return None


async def _answer(send: Any, problem: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 409, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": problem}).encode()})
