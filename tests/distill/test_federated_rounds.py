"""Rounds on Flower's grid: what travels and how much, clients that fail in every way, a server that is killed."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("flwr.app")

from edgestill.distill.federation.apps import make_client, make_server
from edgestill.distill.federation.client import Client, ClientTraining
from edgestill.distill.federation.exchange import Order, packed_answers, packed_order, size_bytes, unpacked_order
from edgestill.distill.federation.flower import VERSION, flower
from edgestill.distill.federation.one_process import make_context, make_grid, weights_in
from edgestill.distill.federation.rounds import Federation, Progress, _answer, await_clients, federate
from edgestill.distill.federation.strategies import STRATEGIES, Answers
from edgestill.distill.federation.strategies.edgefd import EdgeFD, EdgeFDConfig
from edgestill.pipeline.conformance import samples
from edgestill.pipeline.data.teacher_cache import split_digest
from edgestill.pipeline.errors import FailedError, MissingDependencyError
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes

POOL, CLASSES = 6, 3
CPU = torch.device("cpu")


def logits(node):
    return torch.randn(POOL, CLASSES, generator=torch.Generator().manual_seed(node))


class Node:
    """A ClientApp that answers at once, and remembers what it was ordered."""

    def __init__(self, content=None):
        self.content, self.orders, self.taught = content, [], []

    def __call__(self, message, context):
        order, taught = unpacked_order(message.content)
        self.orders.append(order.round)
        self.taught.append(taught)
        if isinstance(self.content, Exception):
            raise self.content
        if isinstance(self.content, str):
            return None
        own = packed_answers(Answers(torch.arange(POOL), logits(context.node_id)))
        return flower().Message(own if self.content is None else self.content, reply_to=message)


def federation(name="average", rounds=1, **changes):
    given = Federation(STRATEGIES[name](), ClientTraining(), rounds, POOL, "a digest", CLASSES, 1000.0, 5.0)
    return given._replace(**changes)


def run(nodes, **given):
    contexts = {node: make_context(node) for node in nodes}
    said, states = [], []
    ended = federate(
        make_grid(nodes, contexts),
        given.pop("of", federation()),
        save=lambda progress: states.append(state_bytes(progress.state())),
        tell=said.append,
        **given,
    )
    return ended, said, states


def record(**arrays):
    app = flower()
    return app.RecordDict({"answers": app.ArrayRecord({name: app.Array(value) for name, value in arrays.items()})})


EVERY, FINE = np.arange(POOL, dtype=np.int32), np.zeros((POOL, CLASSES), np.float32)
GARBAGE = {
    "no answers": (lambda: flower().RecordDict(), "sent no answers"),
    "NaN": (lambda: record(index=EVERY, logits=np.full_like(FINE, np.nan)), "sent answers that are not finite"),
    "infinite": (lambda: record(index=EVERY, logits=np.full_like(FINE, np.inf)), "sent answers that are not finite"),
    "huge": (lambda: record(index=EVERY, logits=FINE + 1e30), r"sent logits up to 1e\+30, above 1000"),
    "other classes": (lambda: record(index=EVERY, logits=FINE[:, :2]), r"sent answers of shape \[6, 2\]"),
    "fewer rows": (lambda: record(index=EVERY, logits=FINE[:4]), r"sent answers of shape \[4, 3\]"),
    "one number": (lambda: record(index=np.array(3, np.int32), logits=FINE), r"examples of shape \[\]"),
    "words": (lambda: record(index=EVERY, logits=np.full((POOL, CLASSES), "a")), r"\(<U1\)"),
    "outside": (lambda: record(index=EVERY + 1, logits=FINE), "the pool of 6 does not have, or one twice"),
    "twice": (lambda: record(index=EVERY * 0, logits=FINE), "the pool of 6 does not have, or one twice"),
    "a part": (lambda: record(index=EVERY[:2], logits=FINE[:2]), "answered 2 of the pool's 6 examples"),
    "weights": (lambda: record(weight=FINE), "sent 'weight' in the place of index and logits"),
    "too much": (lambda: record(index=EVERY, logits=np.zeros((9000, CLASSES), np.float32)), "bytes, above the"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_costs_its_clients_answers_alone_and_is_said_in_a_sentence(kind):
    make, sentence = GARBAGE[kind]
    ended, said, _ = run({1: Node(), 2: Node(make()), 3: Node()})
    assert len(said) == 1
    assert said[0].startswith("round 1: client 2 ")
    assert re.search(sentence, said[0])
    torch.testing.assert_close(ended.fused.shipped.logits, (logits(1) + logits(3)) / 2)
    assert [one.examples for one in ended.rounds[0].clients] == [POOL, 0, POOL]


def test_bytes_that_are_no_array_are_not_read():
    app = flower()
    broken = app.Array("float32", (POOL, CLASSES), "numpy.ndarray", b"no array")
    content = app.RecordDict({"answers": app.ArrayRecord({"index": app.Array(EVERY), "logits": broken})})
    _, said, _ = run({1: Node(), 2: Node(content)})
    assert said[0].startswith("round 1: client 2 sent answers that cannot be read (")


def test_a_client_that_fails_and_one_that_is_late_cost_a_round_and_come_back():
    nodes = {1: Node(), 2: Node(RuntimeError("no memory")), 3: Node("late")}
    ended, said, _ = run(nodes, of=federation(rounds=2))
    assert said[:2] == [
        "round 1: client 2 failed (RuntimeError: no memory)",
        "round 1: client 3 did not answer within 5 s",
    ]
    assert torch.equal(ended.fused.shipped.logits, logits(1))
    assert [node.orders for node in nodes.values()] == [[1, 2]] * 3  # each is ordered in each round
    assert nodes[3].taught[0] is None
    torch.testing.assert_close(nodes[3].taught[1].logits, logits(1))  # taught what the others knew


def test_a_client_that_is_no_longer_connected_is_named_in_each_round():
    first, _, states = run({1: Node(), 2: Node()})
    ended, said, _ = run({1: Node()}, of=federation(rounds=3), progress=Progress.of(read_state(states[-1])))
    assert said == [f"round {number}: client 2 is not connected" for number in (2, 3)]
    assert [len(one.clients) for one in ended.rounds] == [2, 2, 2]
    assert first.fused is not None


def test_a_round_without_any_answer_keeps_what_was_known_and_only_such_rounds_are_a_failure():
    _, _, states = run({1: Node(), 2: Node()})
    known = Progress.of(read_state(states[-1]))
    ended, said, _ = run({1: Node("late"), 2: Node("late")}, of=federation(rounds=2), progress=known)
    assert said[-1] == "round 2: no client answered; what was known before it stays"
    assert torch.equal(ended.fused.shipped.logits, known.fused.shipped.logits)
    with pytest.raises(FailedError, match="no client gave a usable answer in 2 rounds: round 2: client 1 did not"):
        run({1: Node("late")}, of=federation(rounds=2))


@pytest.mark.parametrize("name", ["average", "knfu", "edgefd", "local"])
def test_a_killed_server_repeats_no_finished_round_and_ends_as_an_undisturbed_one(name):
    whole, _, states = run({1: Node(), 2: Node(), 3: Node()}, of=federation(name, rounds=4))
    nodes = {1: Node(), 2: Node(), 3: Node()}
    ended, _, _ = run(nodes, of=federation(name, rounds=4), progress=Progress.of(read_state(states[1])))
    assert [node.orders for node in nodes.values()] == [[3, 4]] * 3
    assert torch.equal(ended.fused.shipped.logits, whole.fused.shipped.logits)
    assert ended.rounds == whole.rounds


def test_a_server_that_goes_on_says_again_what_went_wrong_before():
    _, before, states = run({1: Node(), 2: Node("late")})
    _, said, _ = run({1: Node(), 2: Node()}, of=federation(rounds=2), progress=Progress.of(read_state(states[-1])))
    assert said == before == ["round 1: client 2 did not answer within 5 s"]


def test_each_client_of_knfu_is_taught_a_mixture_of_its_own_and_one_that_was_lost_the_mean():
    nodes = {1: Node(), 2: Node(), 3: Node(RuntimeError())}
    ended, _, _ = run(nodes, of=federation("knfu", rounds=2))
    expected = STRATEGIES["knfu"]().fuse({n: Answers(torch.arange(POOL), logits(n)) for n in (1, 2)}, POOL)
    for n in (1, 2):
        torch.testing.assert_close(nodes[n].taught[1].logits, expected.taught[n].logits)
    torch.testing.assert_close(nodes[3].taught[1].logits, expected.shipped.logits)
    assert not torch.equal(nodes[1].taught[1].logits, nodes[2].taught[1].logits)
    assert ended.rounds[1].known == POOL


def test_local_training_exchanges_nothing_before_the_last_round():
    nodes = {1: Node(), 2: Node()}
    ended, _, _ = run(nodes, of=federation("local", rounds=3))
    assert [node.taught for node in nodes.values()] == [[None] * 3] * 2
    assert [one.known for one in ended.rounds] == [0, 0, POOL]


def saved_bytes(array):
    out = io.BytesIO()
    np.save(out, array)
    return len(out.getvalue())


def test_the_bytes_of_a_round_are_those_of_the_arrays_and_their_names():
    ended, _, _ = run({1: Node(), 2: Node("late")}, of=federation(rounds=2))
    answers = saved_bytes(EVERY) + saved_bytes(FINE) + len("index") + len("logits")
    first, second = (one.clients for one in ended.rounds)
    assert [one.received_bytes for one in first] == [answers, 0]
    assert [b.sent_bytes - a.sent_bytes for a, b in zip(first, second, strict=True)] == [
        answers,
        answers,
    ]  # what is taught
    assert first[0].sent_bytes == size_bytes(packed_order(Order(1, *_settings()), None))


def _settings():
    given = federation()
    return given.strategy.config.model_dump_json(), given.training.model_dump_json(), given.pool_digest, True


def test_fewer_answers_are_fewer_bytes():
    few = packed_answers(Answers(torch.arange(2), logits(5)[:2]))
    ended, said, _ = run({1: Node(), 2: Node(few)}, of=federation("edgefd"))
    assert said == []
    assert ended.rounds[0].clients[1].received_bytes < ended.rounds[0].clients[0].received_bytes
    assert [one.examples for one in ended.rounds[0].clients] == [POOL, 2]
    expected = torch.cat([(logits(1)[:2] + logits(5)[:2]) / 2, logits(1)[2:]])
    torch.testing.assert_close(ended.fused.shipped.logits, expected)


def test_a_client_with_nothing_of_the_pool_near_its_own_is_said_to_be_so():
    nothing = packed_answers(Answers(torch.arange(0), torch.empty(0, CLASSES)))
    ended, said, _ = run({1: Node(), 2: Node(nothing)}, of=federation("edgefd"))
    assert said == ["round 1: client 2 found none of the pool near its own"]
    assert torch.equal(ended.fused.shipped.logits, logits(1))


def test_the_server_waits_for_its_clients_until_the_time_is_over():
    asked = []

    class Growing:
        def get_node_ids(self):
            asked.append(1)
            return range(len(asked))

    assert await_clients(Growing(), 3, 60.0, sleep=lambda s: None) == 3
    assert await_clients(Growing(), 100, 0.0, sleep=lambda s: None) < 100


def test_without_flower_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flwr.app", None)
    with pytest.raises(MissingDependencyError, match=rf"pip install --no-deps flwr=={VERSION}"):
        flower()


@pytest.fixture
def clients(make_network):
    """Two clients of different architectures and halves of the data."""
    data = samples.splits(samples.image_task(classes=CLASSES), train=60)
    pool = samples.examples(data.task, 12, seed=9)
    networks = [make_network(1, task=data.task), make_network(2, widths=(3, 4, 5), task=data.task)]
    halves = [torch.arange(0, 30), torch.arange(30, 60)]
    return {n: Client(networks[n - 1], data.train.select(halves[n - 1]), pool, n, CPU) for n in (1, 2)}


def rounds_of(clients, name, rounds=2, strategy=None):
    pool = clients[1].pool
    given = federation(
        name,
        rounds,
        pool=len(pool),
        pool_digest=split_digest(pool),
        training=ClientTraining(local_epochs=1, taught_epochs=1, batch_size=8),
    )
    given = given if strategy is None else given._replace(strategy=strategy)
    app = make_client(lambda context: clients[context.node_id])
    contexts = {n: make_context(n) for n in clients}
    said, ended = [], []
    server = make_server(lambda grid, context: ended.append(federate(grid, given, tell=said.append)))
    server(make_grid(dict.fromkeys(clients, app), contexts), make_context(0))
    return ended[0], contexts, said


@pytest.mark.parametrize("features", ["pixels", "embedding"])
def test_clients_of_different_architectures_learn_and_answer_within_flowers_apps(clients, features):
    before = {n: [p.clone() for p in one.student.parameters()] for n, one in clients.items()}
    ended, contexts, said = rounds_of(
        clients, "edgefd", strategy=EdgeFD(EdgeFDConfig(features=features, percentile=100))
    )
    assert said == []
    assert [one.number for one in ended.rounds] == [1, 2]
    for n, one in clients.items():
        kept = weights_in(contexts[n])
        assert kept.keys() == one.student.state_dict().keys()
        assert all(torch.equal(kept[name], value) for name, value in one.student.state_dict().items())
        assert any(not torch.equal(*pair) for pair in zip(before[n], one.student.parameters(), strict=True))


def test_a_client_is_taught_the_answers_that_it_was_sent(clients):
    client, training = clients[1], ClientTraining(local_epochs=1, taught_epochs=30, batch_size=8, learning_rate=0.1)
    target = torch.eye(CLASSES)[torch.arange(12) % CLASSES] * 6  # not what its own labels teach

    def agreement():
        return float((client.answer(1, STRATEGIES["average"]()).logits.argmax(1) == target.argmax(1)).float().mean())

    client.learn(1, None, training)
    untaught = agreement()
    pool_phase = client._fit
    seen = []

    def only_pool(objective, split, config, part, number):
        seen.append((part, len(split)))
        if part == "taught":
            pool_phase(objective, split, config, part, number)

    object.__setattr__(client, "_fit", only_pool)
    client.learn(2, Answers(torch.arange(12), target), training)
    assert seen == [("taught", 12), ("own", 30)]
    assert agreement() > max(untaught, 0.9)


def test_another_pool_than_the_servers_is_refused(clients):
    other = Client(clients[2].student, clients[2].own, clients[2].own, 2, CPU)
    _, _, said = rounds_of({1: clients[1], 2: other}, "average", rounds=1)
    assert said == [
        "round 1: client 2 failed (DataError: the client's public pool is not the server's: other examples, or another "
        "order)"
    ]


@pytest.mark.parametrize(("reason", "said"), [("", "21"), (None, "21"), (" \n ", "21"), ("a\nb \x1b[2J", "b \\x1b[2J")])
def test_a_clients_words_on_its_failure_may_be_any(reason, said):
    error = SimpleNamespace(reason=reason, code=21)
    reply = SimpleNamespace(has_error=lambda: True, error=error)
    assert _answer(SimpleNamespace(deadline_s=None), 1, True, reply) == f"failed ({said})"
