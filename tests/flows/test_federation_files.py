"""Files of a federation: owners' examples and networks, the server's rounds and answers; a server that is killed."""

import json

import numpy as np
import pytest

pytest.importorskip("flwr.app")

from edgestill.distill.federation.apps import make_client
from edgestill.distill.federation.flower import flower
from edgestill.distill.federation.one_process import make_grid
from edgestill.flows.federation.owner import keep_weights, load_client, owned_examples
from edgestill.flows.federation.server import ANSWERS, ROUNDS, serve
from edgestill.pipeline.conformance import samples
from edgestill.pipeline.errors import ConfigError, DataError

TASK = samples.image_task(classes=3)
CONFIG = """
data: {{name: npz, path: {0}/public.npz, unlabelled: {0}/pool.npz}}
search: {{space: {{name: resnet, blocks: [[1], [1], [1]], widths: [[4, 6], [6], [8]]}}}}
distill:
  driver: {{name: federated, clients: 2, rounds: 2, deadline_s: 1,
            training: {{local_epochs: 1, taught_epochs: 1, batch_size: 8}}}}
"""


def write(path, split, **names):
    x, y = split.images.squeeze(1).numpy(), split.targets.numpy()
    np.savez(path, **{names.get("x", "x"): x, names.get("y", "y"): y})


@pytest.fixture
def folder(tmp_path):
    public = samples.examples(TASK, 60, seed=1)
    x, y = public.images.squeeze(1).numpy(), public.targets.numpy()
    np.savez(tmp_path / "public.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    np.savez(tmp_path / "pool.npz", x=samples.examples(TASK, 20, seed=2).images.squeeze(1).numpy())
    for number in (0, 1):
        own = samples.examples(TASK, 24, seed=3 + number)
        write(tmp_path / f"owner_{number}.npz", own.select(own.targets == number))
    (tmp_path / "federation.yaml").write_text(CONFIG.format(tmp_path))
    return tmp_path


def context(node, **given):
    app = flower()
    config = {"node_config": given, "run_config": {}} if node else {"node_config": {}, "run_config": given}
    return app.Context(run_id=1, node_id=node, state=app.RecordDict(), **config)


def owner(folder, number, **given):
    return context(
        number + 1, config=str(folder / "federation.yaml"), data=str(folder / f"owner_{number}.npz"), **given
    )


def run(folder, contexts, learnt=None):
    app = make_client(load_client, keep_weights)

    def called(message, context):
        if learnt is not None:
            learnt.append((context.node_id, int(message.metadata.group_id)))
        return app(message, context)

    grid = make_grid(dict.fromkeys(contexts, called), contexts)
    serve(grid, context(0, config=str(folder / "federation.yaml"), out=str(folder / "out")))


def test_owners_of_a_class_each_answer_the_pool_and_the_server_writes_rounds_and_answers(folder, capsys):
    run(folder, {n + 1: owner(folder, n) for n in (0, 1)})
    rounds = json.loads((folder / "out" / ROUNDS).read_text())
    assert [one["number"] for one in rounds] == [1, 2]
    assert all(client["wrong"] is None for one in rounds for client in one["clients"])
    with np.load(folder / "out" / ANSWERS) as held:
        assert held["logits"].shape == (len(held["index"]), 3)
        assert 0 < len(held["index"]) <= 20
    assert "round 2 of 2" in capsys.readouterr().err


def test_a_killed_server_goes_on_in_the_same_folder_and_so_do_owners_that_keep_their_networks(folder, monkeypatch):
    weights = [folder / f"owner_{n}.pt" for n in (0, 1)]

    def contexts():
        return {n + 1: owner(folder, n, weights=str(weights[n])) for n in (0, 1)}

    told = []

    def kill(sentence):
        told.append(sentence)
        if sentence.startswith("round 1 of 2"):
            raise KeyboardInterrupt

    monkeypatch.setattr("edgestill.flows.federation.server._say", kill)
    with pytest.raises(KeyboardInterrupt):
        run(folder, contexts())
    monkeypatch.undo()
    assert all(path.exists() for path in weights)
    kept = load_client(owner(folder, 0, weights=str(weights[0]))).student.state_dict()
    fresh = load_client(owner(folder, 0)).student.state_dict()
    assert any(not bool((kept[name] == fresh[name]).all()) for name in kept)
    learnt = []
    run(folder, contexts(), learnt)
    assert sorted(learnt) == [(1, 2), (2, 2)]
    assert [one["number"] for one in json.loads((folder / "out" / ROUNDS).read_text())] == [1, 2]


def test_owners_have_networks_of_their_own_or_the_one_that_they_name(folder):
    one, other = (load_client(owner(folder, n)) for n in (0, 1))
    assert one.seed != other.seed
    again = load_client(owner(folder, 0))
    assert all(bool((a == b).all()) for a, b in zip(one.student.parameters(), again.student.parameters(), strict=True))
    named = load_client(owner(folder, 0, student="1-1-1/6-6-10"))
    assert named.student.linear.in_features == 10


def test_what_a_node_or_the_server_is_not_told_is_named(folder):
    with pytest.raises(ConfigError, match="--node-config gives no data"):
        load_client(context(1, config=str(folder / "federation.yaml")))
    with pytest.raises(ConfigError, match="--run-config needs config, a file, and out, a folder"):
        serve(None, context(0, config="a.yaml"))
    (folder / "other.yaml").write_text("data: digits\n")
    with pytest.raises(ConfigError, match=r"(?s)needs federated.*data\.unlabelled is not set"):
        load_client(context(1, config=str(folder / "other.yaml"), data="a.npz"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(4, np.int64)}, "y must be 6 class numbers from 0 to 2"),
        ({"y": np.full(6, 3)}, "y must be 6 class numbers from 0 to 2"),
        ({"y": np.zeros(6)}, "y must be 6 class numbers from 0 to 2"),
        ({"x": np.zeros((6, 9, 9), np.float32)}, r"holds images of \[1, 9, 9\], and the pool's are \[1, 8, 8\]"),
        ({"y": None}, "holds no y, the class numbers"),
    ],
)
def test_an_owners_file_that_does_not_fit_says_why(tmp_path, change, sentence):
    arrays = {"x": np.zeros((6, 8, 8), np.float32), "y": np.zeros(6, np.int64)} | change
    np.savez(tmp_path / "own.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=sentence):
        owned_examples(tmp_path / "own.npz", TASK)
