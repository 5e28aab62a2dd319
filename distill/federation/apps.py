"""Flower's two apps: the server's runs the rounds on a grid, a client's learns and answers when it is ordered to."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from edgestill.distill.federation.client import Client, ClientTraining
from edgestill.distill.federation.exchange import STUDENT, Order, packed_answers, unpacked_order
from edgestill.distill.federation.flower import flower
from edgestill.distill.federation.strategies import STRATEGIES, Strategy
from edgestill.pipeline.data.teacher_cache import split_digest
from edgestill.pipeline.errors import DataError


def make_server(run: Callable[[Any, Any], None]) -> Any:
    """Make the ServerApp that calls `run` with the grid and its context."""
    app = flower("serverapp").ServerApp()
    app.main()(run)
    return app


def make_client(
    load: Callable[[Any], Client], keep: Callable[[Any, Mapping[str, Tensor]], None] = lambda context, weights: None
) -> Any:
    """Make the ClientApp of a node.

    Args:
        load: from the node's context to its client; weights of earlier rounds are taken from that context.
        keep: is given the context and the client's weights after each round.
    """
    app = flower("clientapp").ClientApp()

    def train(message: Any, context: Any) -> Any:
        client = load(context)
        if STUDENT in context.state:
            client.student.load_state_dict(context.state[STUDENT].to_torch_state_dict())
        reply = _learnt(client, message)
        context.state[STUDENT] = flower().ArrayRecord(dict(client.student.state_dict()))
        keep(context, client.student.state_dict())
        return reply

    app.train()(train)
    return app


def _learnt(client: Client, message: Any) -> Any:
    order, taught = unpacked_order(message.content)
    if order.pool != split_digest(client.pool):
        raise DataError("the client's public pool is not the server's: other examples, or another order")
    client.learn(order.round, taught, ClientTraining.model_validate_json(order.training))
    answers = client.answer(order.round, _strategy(order)) if order.answers else None
    return flower().Message(packed_answers(answers), reply_to=message)


def _strategy(order: Order) -> Strategy:
    settings = json.loads(order.strategy)
    kind = STRATEGIES[settings["name"]]
    return kind(kind.Config.model_validate(settings))
