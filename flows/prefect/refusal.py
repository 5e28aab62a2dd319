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
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body") and len(body) < _MOST_BYTES:
            message = await receive()
            body += message.get("body", b"")
        problem, body = await self._checked(asked[1], body, scope["headers"])
        if problem is not None:
            await _answer(send, problem)
            return
        length = (b"content-length", str(len(body)).encode())
        headers = [length, *(header for header in scope["headers"] if header[0].lower() != b"content-length")]
        messages = [{"type": "http.request", "body": body, "more_body": bool(message.get("more_body"))}]

        async def again() -> Any:
            return messages.pop() if messages else await receive()

        await self._application({**scope, "headers": headers}, again, send)

    async def _checked(self, deployment: str, body: bytes, headers: Any) -> tuple[str | None, bytes]:
        """Return the sentence against a form, None for a fitting one, and the body with the fields that it left out.

        What is not of a form is Prefect's to refuse.
        """
        import httpx

        try:
            asked = json.loads(body or b"{}")
            given = asked.get("parameters") or {}
            transport = httpx.ASGITransport(self._application)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                kept = {k.decode(): v.decode() for k, v in headers if k.lower() in (b"host", b"authorization")}
                found = (await client.get(f"/api/deployments/{deployment}", headers=kept)).json()
            if TAG not in found["tags"]:
                return None, body
            if given.get("settings") and "config" not in given:
                shown = found["parameter_openapi_schema"]["properties"]["settings"]["default"]
                given = {**given, "settings": {**shown, **given["settings"]}}
                body = json.dumps({**asked, "parameters": given}).encode()
            return refused({**found["parameters"], **given}), body
        except (ValueError, AttributeError, KeyError, TypeError, httpx.HTTPError):
            return None, body


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
