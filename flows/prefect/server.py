"""The Prefect server of `edgestill ui`: Prefect's own application, answering its own pages and known hosts alone.

A browser lets any page send requests to this machine. Prefect allows all origins and checks no host name, so such a
page could start flow runs, by a plain form or through a name of its own for 127.0.0.1. A browser sends `Origin` with
every form and with every request to another origin, and in `Host` the name it asked for: `OwnPagesOnly` checks both.
Other clients send no `Origin`.
"""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from edgestill.flows.prefect.auth import is_loopback
from edgestill.pipeline.errors import UserError

_LAST_REQUESTS_S = 5  # for requests at work when the server is stopped
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class OwnPagesOnly:
    """An ASGI application behind a check of `Host` and `Origin`.

    Args:
        hosts: names allowed in `Host`, without the port; IPv6 addresses in brackets.
        port: of the server; with each of the hosts it makes an allowed origin.
    """

    def __init__(self, application: Any, hosts: Sequence[str], port: int) -> None:
        self._application = application
        self._hosts = {host.lower() for host in hosts}
        self._origins = set(origins(hosts, port))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        refusal = self.refusal([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
        if refusal is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": refusal.encode()})

    def refusal(self, headers: Sequence[tuple[str, str]]) -> str | None:
        """Reason to refuse a request with these headers; None if it is to be answered."""
        hosts = [value.lower() for name, value in headers if name == "host"]
        if len(hosts) != 1 or _without_port(hosts[0]) not in self._hosts:
            return "this server does not go by that name; `edgestill ui --allow-host NAME` adds one"
        for origin in (value.lower() for name, value in headers if name == "origin"):
            # behind a TLS proxy, the page's own origin is https with the name and port in `Host`
            if origin not in self._origins and origin != f"https://{hosts[0]}":
                return "requests from pages of other origins are refused"
        return None


def origins(hosts: Sequence[str], port: int) -> list[str]:
    """The origins of the server's own pages."""
    return [f"http://{host.lower()}:{port}" for host in hosts]


def known_hosts(host: str, more: Sequence[str]) -> list[str]:
    """Names of a server listening on `host`: loopback's, the address, this machine's if not on loopback, and `more`."""
    listening = [] if _is_wildcard(host) else [f"[{host}]" if ":" in host else host]
    own = [] if is_loopback(host) else [socket.gethostname(), socket.getfqdn()]
    return list(dict.fromkeys(name.lower() for name in (*_LOOPBACK, *listening, *own, *more)))


def run_server(host: str, port: int, more_hosts: Sequence[str] = ()) -> None:
    """Serve Prefect's API and UI until interrupted.

    Raises:
        UserError: the address is not this machine's or taken, or it is not loopback and there is no password.
    """
    hosts = known_hosts(host, more_hosts)
    shown = "127.0.0.1" if _is_wildcard(host) else f"[{host}]" if ":" in host else host
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins(hosts, port))
    os.environ.setdefault("PREFECT_SERVER_UI_API_URL", f"http://{shown}:{port}/api")
    _require_free(host, port)
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    from edgestill.flows.prefect.refusal import RefusesBadForms

    if not is_loopback(host) and PREFECT_SERVER_API_AUTH_STRING.value() is None:
        raise UserError(
            f"--host {host} can be reached from other machines, and whoever reaches the server starts runs here: set a "
            "password by --auth, or by PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD here and PREFECT_API_AUTH_STRING "
            "for its clients, or listen on 127.0.0.1"
        )
    application = OwnPagesOnly(RefusesBadForms(create_app(final=True)), hosts, port)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the way to stop it
        uvicorn.run(
            application,
            host=host,
            port=port,
            log_level="warning",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_LAST_REQUESTS_S,  # an open page of a browser would keep it alive for ever
        )


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"the server cannot listen on {host}, port {port}: {reason}; try another --port") from None


def _is_wildcard(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    return False


def _without_port(host: str) -> str:
    """Host without its port, such as `[::1]` for `[::1]:4200`; empty if malformed."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d+)?", host)
    return found[1] if found else ""
