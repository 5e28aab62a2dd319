"""The server's rounds on Flower's grid: it orders, waits until a deadline, looks at what came, and mixes it.

A client that fails, is late or sends garbage costs its own answers of that round; the round goes on and says so.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self

import torch

from edgestill.distill.federation.client import ClientTraining
from edgestill.distill.federation.exchange import Asked, Order, packed_order, screened, size_bytes
from edgestill.distill.federation.flower import flower
from edgestill.distill.federation.strategies.base import Answers, Fused, Strategy
from edgestill.pipeline.errors import FailedError, printable
from edgestill.pipeline.frozen import Frozen


class Told(Frozen):
    """One client in one round."""

    client: int
    sent_bytes: int  # to the client
    received_bytes: int  # from it, looked at or not
    examples: int  # of the pool that it answered, used in the mixture
    wrong: str | None = None  # why nothing of it was used


class Round(Frozen):
    number: int  # from 1
    clients: tuple[Told, ...]
    known: int  # examples of the pool with an answer after it

    def sentences(self) -> list[str]:
        """Say what went wrong, a sentence each."""
        said = [f"round {self.number}: client {one.client} {one.wrong}" for one in self.clients if one.wrong]
        if self.clients and all(one.wrong for one in self.clients):
            said.append(f"round {self.number}: no client answered; what was known before it stays")
        return said


class Progress(NamedTuple):
    """Finished rounds, and what the last of them knows."""

    rounds: tuple[Round, ...] = ()
    fused: Fused | None = None

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, to be saved after a round."""
        fused = self.fused
        taught = {} if fused is None else {str(client): one._asdict() for client, one in fused.taught.items()}
        return {
            "rounds": [one.model_dump() for one in self.rounds],
            "taught": taught,
            "shipped": None if fused is None else fused.shipped._asdict(),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        rounds = tuple(Round.model_validate(one) for one in state["rounds"])
        if state["shipped"] is None:
            return cls(rounds)
        taught = {int(client): Answers(**one) for client, one in state["taught"].items()}
        return cls(rounds, Fused(taught, Answers(**state["shipped"])))


class Federation(NamedTuple):
    """All that the rounds are made by."""

    strategy: Strategy
    training: ClientTraining
    rounds: int
    pool: int  # its size
    pool_digest: str
    classes: int
    largest_logit: float
    deadline_s: float | None


def federate(
    grid: Any,
    federation: Federation,
    *,
    progress: Progress | None = None,
    save: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Progress:
    """Run the rounds that are left.

    Args:
        grid: Flower's.
        progress: of an interrupted federation.
        save: is given the progress after each round.
        tell: is given a sentence for each thing that went wrong, in the rounds before too.

    Raises:
        FailedError: no client gave an answer in any round.
    """
    progress = progress or Progress()
    for sentence in (sentence for finished in progress.rounds for sentence in finished.sentences()):
        tell(sentence)
    for number in range(len(progress.rounds) + 1, federation.rounds + 1):
        progress = _round(grid, federation, number, progress)
        for sentence in progress.rounds[-1].sentences():
            tell(sentence)
        save(progress)
    if progress.fused is None:
        raise FailedError(f"no client gave a usable answer in {federation.rounds} rounds: {_last_words(progress)}")
    return progress


def await_clients(grid: Any, count: int, within_s: float, sleep: Callable[[float], None] = time.sleep) -> int:
    """Wait until `count` clients are connected or the time is over, and return how many are."""
    end = time.monotonic() + within_s
    while (found := len(list(grid.get_node_ids()))) < count and time.monotonic() < end:
        sleep(0.5)
    return found


def _round(grid: Any, federation: Federation, number: int, before: Progress) -> Progress:
    orders = {node: _order(federation, number, node, before.fused) for node in sorted(grid.get_node_ids())}
    message = flower().Message
    sent = [message(content, node, "train", group_id=str(number)) for node, content in orders.items()]
    replies = _by_client(grid.send_and_receive(sent, timeout=federation.deadline_s)) if sent else {}
    told, answers = [], dict[int, Answers]()
    for client in sorted(orders.keys() | _seen(before)):
        found = _answer(federation, number, client in orders, replies.get(client))
        if isinstance(found, Answers) and _are_asked(federation, number):
            answers[client] = found
        told.append(_told(client, orders.get(client), replies.get(client), found))
    fused = federation.strategy.fuse(answers, federation.pool) if answers else before.fused
    known = 0 if fused is None else len(fused.shipped.index)
    return Progress((*before.rounds, Round(number=number, clients=tuple(told), known=known)), fused)


def _order(federation: Federation, number: int, client: int, fused: Fused | None) -> Any:
    strategy = federation.strategy
    order = Order(
        round=number,
        strategy=strategy.config.model_dump_json(),
        training=federation.training.model_dump_json(),
        pool=federation.pool_digest,
        answers=_are_asked(federation, number),
    )
    taught = fused.taught.get(client, fused.shipped) if fused is not None and strategy.teaches else None
    return packed_order(order, taught)


def _are_asked(federation: Federation, number: int) -> bool:
    return federation.strategy.teaches or number == federation.rounds


def _by_client(replies: Iterable[Any]) -> dict[int, Any]:
    return {reply.metadata.src_node_id: reply for reply in replies}


def _answer(federation: Federation, number: int, is_here: bool, reply: Any) -> Answers | str:
    """Return a client's answers, or the reason why there are none."""
    if not is_here:
        return "is not connected"
    if reply is None:
        limit = "" if federation.deadline_s is None else f" within {federation.deadline_s:g} s"
        return f"did not answer{limit}"
    if reply.has_error():
        return f"failed ({printable(_last_line(reply.error.reason) or str(reply.error.code))[:200]})"
    if not _are_asked(federation, number):
        return Answers(torch.empty(0, dtype=torch.int64), torch.empty(0, federation.classes))
    is_whole = not federation.strategy.reads
    asked = Asked(federation.pool, federation.classes, is_whole, federation.largest_logit)
    found = screened(reply.content, asked)
    return "found none of the pool near its own" if isinstance(found, Answers) and not len(found.index) else found


def _last_line(text: str | None) -> str:
    return next(reversed((text or "").strip().splitlines()), "")


def _told(client: int, order: Any, reply: Any, found: Answers | str) -> Told:
    return Told(
        client=client,
        sent_bytes=0 if order is None else size_bytes(order),
        received_bytes=size_bytes(reply.content) if reply is not None and reply.has_content() else 0,
        examples=0 if isinstance(found, str) else len(found.index),
        wrong=found if isinstance(found, str) else None,
    )


def _seen(progress: Progress) -> set[int]:
    return {one.client for finished in progress.rounds for one in finished.clients}


def _last_words(progress: Progress) -> str:
    return "; ".join(progress.rounds[-1].sentences()[:5]) if progress.rounds else "there was no round"
