"""Divisions of data among clients, and the strategies' formulas against brute force and where they are known."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from edgestill.distill.federation.partition import partition
from edgestill.distill.federation.strategies import STRATEGIES, Answers, Known
from edgestill.distill.federation.strategies.choice import AnyStrategyConfig
from edgestill.distill.federation.strategies.edgefd import EdgeFD, EdgeFDConfig, class_centroids, nearest
from edgestill.distill.federation.strategies.knfu import KnFu, KnFuConfig, log_weights
from edgestill.pipeline.conformance import samples
from edgestill.pipeline.errors import DataError

TARGETS = torch.arange(120) % 6


def drawn(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers(clients, size=7, classes=4):
    return {n: Answers(torch.arange(size), drawn(size, classes, seed=n)) for n in range(1, clients + 1)}


@pytest.mark.parametrize("division", ["even", "dirichlet", "class"])
@pytest.mark.parametrize("clients", [2, 6, 9])
def test_every_example_is_one_clients_and_a_seed_gives_the_same_division(division, clients):
    parts = partition(TARGETS, clients, division, 0.5, seed=3)
    assert len(parts) == clients
    assert sorted(torch.cat(parts).tolist()) == list(range(120))
    again = partition(TARGETS, clients, division, 0.5, seed=3)
    assert all(torch.equal(*pair) for pair in zip(parts, again, strict=True))
    if division != "class" or clients > 6:
        other = partition(TARGETS, clients, division, 0.5, seed=4)
        assert any(not torch.equal(*pair) for pair in zip(parts, other, strict=True))


def test_a_class_a_client_leaves_no_class_to_two_clients_unless_there_are_more_clients_than_classes():
    assert [set(TARGETS[part].tolist()) for part in partition(TARGETS, 3, "class", 1, 0)] == [{0, 3}, {1, 4}, {2, 5}]
    assert [set(TARGETS[part].tolist()) for part in partition(TARGETS, 6, "class", 1, 0)] == [{k} for k in range(6)]
    shared = partition(TARGETS, 8, "class", 1, 0)
    assert [set(TARGETS[part].tolist()) for part in shared] == [{k % 6} for k in range(8)]
    assert [len(part) for part in shared] == [10, 10, 20, 20, 20, 20, 10, 10]


def test_a_small_alpha_gives_few_classes_each_and_a_large_one_all():
    def largest_share(alpha):
        parts = partition(TARGETS.repeat(10), 5, "dirichlet", alpha, seed=0)
        counts = np.stack([np.bincount(TARGETS.repeat(10)[part], minlength=6) for part in parts])
        return (counts.max(1) / counts.sum(1)).mean()

    assert largest_share(0.1) > 0.45
    assert largest_share(1000.0) < 0.2  # an even division has 1/6


def test_more_clients_than_the_data_can_feed_are_refused_with_the_number_that_is_needed():
    with pytest.raises(DataError, match=r"40 clients \(even\) leave one with 3; each needs 4"):
        partition(TARGETS, 40, "even", 1, 0)


def test_a_strategy_is_chosen_by_its_name_alone():
    adapter = TypeAdapter(AnyStrategyConfig)
    for name, strategy in STRATEGIES.items():
        assert adapter.validate_python(name) == strategy.Config()
        assert strategy(adapter.validate_python({"name": name})).config.name == strategy.name == name
        assert "arXiv" in strategy.paper or "without a paper" in strategy.paper


def test_averaging_is_the_mean_of_what_each_example_was_answered_with():
    given = answers(3)
    given[2] = Answers(torch.tensor([1, 4]), given[2].logits[:2])
    del given[3]
    given[1] = Answers(torch.tensor([0, 1]), given[1].logits[:2])
    for name in ("average", "edgefd", "local"):
        shipped = STRATEGIES[name]().fuse(given, 7).shipped
        assert shipped.index.tolist() == [0, 1, 4]  # nobody answered the others
        expected = [given[1].logits[0], (given[1].logits[1] + given[2].logits[0]) / 2, given[2].logits[1]]
        torch.testing.assert_close(shipped.logits, torch.stack(expected))


def test_local_training_teaches_nobody():
    assert not STRATEGIES["local"].teaches
    assert STRATEGIES["local"]().fuse(answers(2), 7).taught == {}


def test_edgefd_without_a_threshold_is_plain_averaging():
    plain, without = STRATEGIES["average"](), EdgeFD(EdgeFDConfig(percentile=None))
    assert without.reads == plain.reads == ""
    known = Known(drawn(9, 5), torch.arange(9) % 3, 100 * drawn(7, 5, seed=1))
    assert bool(without.answered(known, 0).all())
    one, other = (strategy.fuse(answers(4), 7).shipped for strategy in (plain, without))
    assert torch.equal(one.logits, other.logits)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 100.0])
def test_edgefd_answers_what_is_as_near_to_a_class_mean_as_so_many_of_the_clients_own(percentile):
    own, targets, pool = drawn(40, 5), torch.arange(40) % 3, drawn(200, 5, seed=1)
    means = [np.mean([own[n].numpy() for n in range(40) if targets[n] == k], axis=0) for k in range(3)]

    def distance(row):
        return min(np.linalg.norm(row.double().numpy() - mean) for mean in means)

    threshold = np.percentile([distance(row) for row in own], percentile)
    expected = [distance(row) <= threshold for row in pool]
    strategy = EdgeFD(EdgeFDConfig(percentile=percentile))
    assert strategy.answered(Known(own, targets, pool), 0).tolist() == expected
    within = strategy.answered(Known(own, targets, own), 0)
    assert int(within.sum()) == pytest.approx(0.4 * percentile, abs=1)


def test_a_client_of_one_class_answers_little_else_where_classes_are_apart():
    task = samples.image_task(classes=3)
    everything, pool = samples.examples(task, 300, seed=1), samples.examples(task, 300, seed=2)
    own = everything.select(everything.targets == 1)
    known = Known(own.images.flatten(1), own.targets, pool.images.flatten(1))
    answered = EdgeFD().answered(known, 0)
    precision = float((pool.targets[answered] == 1).float().mean())
    assert precision > 0.9
    assert int(answered.sum()) > 60  # of 100: it is not precise by answering nothing
    all_of_it = STRATEGIES["average"]().answered(known, 0)
    assert float((pool.targets[all_of_it] == 1).float().mean()) < 0.4


def test_more_centroids_are_nearer_to_the_examples_that_they_stand_for():
    own, targets = drawn(60, 3), torch.arange(60) % 2
    spreads = [float(nearest(own, class_centroids(own, targets, each, 0)).mean()) for each in (1, 3, 8)]
    assert spreads == sorted(spreads, reverse=True)
    assert class_centroids(own[:3], targets[:3], 8, 0).shape == (3, 3)  # as many as there are examples
    assert torch.equal(class_centroids(own, targets, 3, 5), class_centroids(own, targets, 3, 5))


def test_knfu_weighs_clients_by_the_divergence_of_their_mean_answers():
    given, beta = answers(3), 2.5
    p = {n: one.logits.double().softmax(1).numpy() for n, one in given.items()}
    q = {n: probabilities.mean(0) for n, probabilities in p.items()}
    fused = KnFu(KnFuConfig(beta=beta)).fuse(given, 7)
    targets = []
    for n in given:
        w = {m: np.exp(-beta * np.sum(q[n] * np.log(q[n] / q[m]))) for m in given}
        targets.append(sum(w[m] * p[m] for m in given) / sum(w.values()))
        np.testing.assert_allclose(fused.taught[n].logits.softmax(1), targets[-1], rtol=1e-5)
    np.testing.assert_allclose(fused.shipped.logits.softmax(1), np.mean(targets, axis=0), rtol=1e-5)


def test_knfu_averages_at_beta_0_leaves_oneself_at_the_largest_and_is_uniform_for_equal_clients():
    given = answers(3)
    p = torch.stack([one.logits.softmax(1) for one in given.values()])
    average, self_taught = (KnFu(KnFuConfig(beta=beta)).fuse(given, 7).taught for beta in (0.0, 1e6))
    for n, own in enumerate(p, 1):
        torch.testing.assert_close(average[n].logits.softmax(1), p.mean(0))
        torch.testing.assert_close(self_taught[n].logits.softmax(1), own)
    alike = log_weights(given[1].logits.log_softmax(1).expand(4, -1, -1), beta=50.0).exp()
    torch.testing.assert_close(alike, torch.full((4, 4), 0.25))
    torch.testing.assert_close(log_weights(p.log(), 10.0).exp().sum(1), torch.ones(3))
