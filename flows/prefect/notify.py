"""Notifications of a night's failure, of a promotion and of drift, by apprise or by Prefect's blocks.

Targets are in the environment of the process that serves, in EDGESTILL_NOTIFY, separated by white space: addresses of
apprise, such as `ntfy://topic` or `mailto://user:password@example.org`, and blocks of the Prefect server, such as
`block:slack-webhook/team`. Addresses hold passwords, so none of them is ever told, nor what a library says of them.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Literal

from edgestill.flows.prefect.launch import server_answers
from edgestill.flows.prefect.names import is_night
from edgestill.pipeline.errors import UserError

TARGETS, _BLOCK = "EDGESTILL_NOTIFY", "block:"
Event = Literal["failed", "promoted", "drifted"]
_TITLES: dict[Event, str] = {
    "failed": "edgestill: the night failed",
    "promoted": "edgestill: a student was promoted",
    "drifted": "edgestill: the promoted student is worse on new data",
}
_TYPES: dict[Event, Any] = {"failed": "failure", "promoted": "success", "drifted": "warning"}


def require_targets() -> int:
    """Check that every target can be read, and return their number.

    Raises:
        UserError: one cannot; says which by its place.
    """
    import apprise

    with _silent():
        for place, target in enumerate(_targets(), 1):
            if not target.startswith(_BLOCK) and not apprise.Apprise().add(target):
                raise UserError(
                    f"{TARGETS}: number {place} is no address of apprise (https://appriseit.com lists them), nor "
                    f"{_BLOCK}TYPE/NAME"
                )
    return len(_targets())


def notify(event: Event, body: str) -> list[str]:
    """Send a notification to every target, and return a sentence on each that did not take it."""
    failed = []
    for place, target in enumerate(_targets(), 1):
        try:
            with _silent():
                is_sent = _sent(target, event, body)
        except Exception as error:  # its words may hold the address
            is_sent, why = False, f" ({type(error).__name__})"
        else:
            why = ""
        if not is_sent:
            failed.append(f"target {place} of {TARGETS} did not take the notification{why}")
    return failed


def tell_of_a_crash(flow: Any, flow_run: Any, state: Any) -> None:
    """Notify of a night whose process died; Prefect calls this in the process that serves."""
    if is_night(flow_run.tags):
        notify("failed", f"the process of {flow_run.name} died; the next night goes on with its run")


def _sent(target: str, event: Event, body: str) -> bool:
    if target.startswith(_BLOCK):
        return _sent_by_block(target.removeprefix(_BLOCK), event, body)
    import apprise

    sender = apprise.Apprise()
    return bool(sender.add(target) and sender.notify(body=body, title=_TITLES[event], notify_type=_TYPES[event]))


def _sent_by_block(name: str, event: Event, body: str) -> bool:
    if not server_answers():
        return False
    from prefect.blocks.core import Block

    load: Any = Block.load  # its type does not tell of `_sync`
    block = load(name, _sync=True)
    with block.raise_on_failure():
        block.notify(body, subject=_TITLES[event], _sync=True)
    return True


def _targets() -> list[str]:
    return os.environ.get(TARGETS, "").split()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep apprise's own log, which tells addresses, from every handler."""
    log = logging.getLogger("apprise")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
