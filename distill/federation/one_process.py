"""Flower's grid within one process: the ClientApps are called one after the other, with the messages that would travel.

Flower's own simulation needs Ray; this needs nothing, and gives the same results each time.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from torch import Tensor

from edgestill.distill.federation.exchange import STUDENT
from edgestill.distill.federation.flower import flower
from edgestill.pipeline.errors import first_line

_RAISED = 2  # Flower's code for a ClientApp that raised an exception


def make_grid(clients: Mapping[int, Any], contexts: Mapping[int, Any]) -> Any:
    """Make a grid whose nodes are ClientApps, by node id; an app that returns None does not answer in time."""
    base: Any = flower("serverapp").Grid
    _introduce()

    class OneProcess(base):  # type: ignore[misc]  # Flower may not be installed
        """Grid of ClientApps that are called when they are sent a message."""

        def set_run(self, run: Any) -> None:
            raise NotImplementedError("there is one run")

        @property
        def run(self) -> Any:
            raise NotImplementedError("there is one run")

        def create_message(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("use flwr.app.Message")

        def get_node_ids(self) -> list[int]:
            return sorted(clients)

        def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
            raise NotImplementedError("use send_and_receive")

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
            raise NotImplementedError("use send_and_receive")

        def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
            """Call the apps in turn; nothing runs beside them, so that none is late and `timeout` is not looked at."""
            nodes = [(message, message.metadata.dst_node_id) for message in messages]
            replies = (_called(message, clients[node], contexts[node]) for message, node in nodes)
            return [reply for reply in replies if reply is not None]

    return OneProcess()


def _called(message: Any, client: Any, context: Any) -> Any:
    app = flower()
    message.metadata.__dict__["_message_id"] = str(uuid4())
    try:
        return client(message, context)
    except Exception as error:  # as Flower's own client does
        return app.Message(app.Error(_RAISED, f"{type(error).__name__}: {first_line(error)}"), reply_to=message)


def make_context(node: int, weights: Mapping[str, Tensor] | None = None) -> Any:
    """Make a node's context, with the weights that its student had."""
    app = flower()
    state = app.RecordDict() if weights is None else app.RecordDict({STUDENT: app.ArrayRecord(dict(weights))})
    return app.Context(run_id=1, node_id=node, node_config={}, state=state, run_config={})


def weights_in(context: Any) -> dict[str, Tensor] | None:
    """Weights of the student in a node's context; None before its first round."""
    return dict(context.state[STUDENT].to_torch_state_dict()) if STUDENT in context.state else None


def _introduce() -> None:
    """Tell Flower's messages whose they are, which its processes do when they start."""
    identity = flower("supercore.task_identity").TaskIdentity
    for name in ("run_id", "node_id", "task_id"):
        if getattr(identity, f"_{name}") is None:
            setattr(identity, name, 1)
