"""The default score against its definition written out, and its scale."""

import math
import random

import numpy as np
import pytest
import torch

from edgestill.pipeline.errors import CandidateError, FailedError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import initialise
from edgestill.search.scorers.ensemble_scale import PARTS, EnsembleScale, Scale, fit_scale
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig, ResNetSpace

PART_NAMES = list(PARTS)


@pytest.fixture
def space():
    return ResNetSpace(ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (8,), (16,))))


@pytest.fixture
def task(make_task):
    return make_task(channels=3, side=12, classes=5)


@pytest.fixture
def batch(task, make_batch):
    return make_batch(task, 40)


def teacher_of(task, width=16):
    space = ResNetSpace(ResNetConfig(widths=((4,), (8,), (width,))))
    return space.build(space.parse(f"1-2-1/4-8-{width}"), task)


def first(batch, count):
    return batch.first(count)


def test_the_ensemble_is_the_weighted_sum_of_its_clipped_standardised_parts(space, task, batch):
    """Parts, medians and scales by scorers of their own on the first 32 images, and numpy's quantiles."""
    parts = Evaluator(space, task, PART_NAMES, Conditions(first(batch, 32), teacher_of(task), 3))
    ensemble = Evaluator(space, task, ["ensemble"], Conditions(batch, teacher_of(task), 3))
    members = list(space.all_architectures())  # fewer than the sample has, so they are it
    columns = {name: [parts(member).values[name] for member in members] for name in PARTS}
    expected = np.zeros(len(members))
    for name, (weight, log, least) in PARTS.items():
        natural = np.log(columns[name]) if log else np.array(columns[name])
        low, high = np.quantile(natural, [0.1, 0.9])
        scale = max((high - low) / 2.563, least)
        expected += weight * np.clip((natural - np.median(natural)) / scale, -4, 6)
    found = [ensemble(member).values["ensemble"] for member in members]
    assert found == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-12)


def test_the_score_of_a_draw_does_not_depend_on_how_many_are_drawn(space, task, batch):
    one, three = (Evaluator(space, task, ["ensemble"], Conditions(batch, teacher_of(task), 0, draws=n)) for n in (1, 3))
    architecture = space.sample(random.Random(1))
    drawn = three.drawn(architecture)["ensemble"]
    assert drawn[0] == one.drawn(architecture)["ensemble"][0]
    assert len(set(drawn)) == 3
    assert three(architecture).values["ensemble"] == pytest.approx(sum(drawn) / 3)


def test_a_narrow_space_is_not_measured_finer_than_a_wide_one():
    columns = {name: [100.0, 100.0001, 100.0002] if part.log else [-0.1, -0.1001] for name, part in PARTS.items()}
    scales = fit_scale(columns).scales
    assert {name: scale.scale for name, scale in scales.items()} == {n: part.min_scale for n, part in PARTS.items()}


def test_a_part_without_a_score_on_most_architectures_is_left_out_and_named():
    columns = {name: [1.0, 2.0, 3.0, 4.0] for name in PARTS} | {"jacov": [math.nan, math.nan, math.nan, -33.0]}
    found = fit_scale(columns)
    assert found.missing == ("jacov",)
    assert set(found.scales) == set(PARTS) - {"jacov"}


def test_a_part_without_a_score_on_few_is_kept_and_its_scale_is_of_the_rest():
    columns = {name: [1.0, 2.0, 3.0, 4.0] for name in PARTS} | {"jacov": [-50.0, math.nan, -33.0, -40.0]}
    found = fit_scale(columns)
    assert found.missing == ()
    assert found.scales["jacov"] == Scale(median=-40.0, scale=22.0)


def test_a_candidate_that_lacks_a_part_which_the_space_has_has_no_score(space, task, batch, monkeypatch):
    ask = Evaluator(space, task, ["ensemble", "params"], Conditions(batch, teacher_of(task), 0))
    (whole,) = ask.composed
    drawn = whole.parts.drawn
    monkeypatch.setattr(whole.parts, "drawn", lambda architecture: drawn(architecture) | {"jacov": [math.nan]})
    assert set(ask(space.sample(random.Random(0))).values) == {"params"}


def test_where_widths_differ_the_semantic_part_is_left_out(space, task, batch):
    ask = Evaluator(space, task, ["ensemble"], Conditions(batch, teacher_of(task, width=24), 0))
    assert ask.missing == {"ensemble": ("diswot_semantic",)}
    assert math.isfinite(ask(space.sample(random.Random(0))).values["ensemble"])


def test_without_a_teacher_its_parts_are_left_out(space, task, batch):
    ask = Evaluator(space, task, ["ensemble"], Conditions(batch, None, 0))
    assert ask.missing == {"ensemble": ("diswot_semantic", "diswot_relation")}


def test_the_scale_is_asked_for_by_a_name_that_follows_what_it_depends_on(task, make_batch):
    def key(channels=2, images=0, seed=0, teacher_seed=0):
        space, found = Nb201Space(Nb201Config(channels=channels, cells=1)), []

        def keep(name, kind, compute):
            found.append(name)
            return fit_scale({part: [1.0, 2.0] for part in PARTS})

        torch.manual_seed(teacher_seed)
        teacher, seen = teacher_of(task, 8), make_batch(task, 32, seed=images)
        Evaluator(space, task, ["ensemble"], Conditions(seen, teacher, seed, trained=True), Means(keep=keep))
        return found[0]

    assert key() == key()
    others = [key(images=1), key(seed=1), key(teacher_seed=1), key(channels=3)]
    assert len({key(), *others}) == 5


def test_a_kept_scale_gives_the_same_scores_without_computing(space, task, batch):
    kept = {}

    def keeping(key, kind, compute):
        kept[key] = EnsembleScale.model_validate_json(compute().model_dump_json())
        return kept[key]

    def known(key, kind, compute):
        return kept[key]

    first, second = (
        Evaluator(space, task, ["ensemble"], Conditions(batch, teacher_of(task), 0), Means(keep=how))
        for how in (keeping, known)
    )
    architecture = space.sample(random.Random(0))
    assert first(architecture).values == second(architecture).values


def test_a_dead_candidate_has_no_ensemble_score_whether_or_not_the_others_guard(task, batch):
    space = Nb201Space(Nb201Config(channels=4, cells=1))
    dead = space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    ask = Evaluator(space, task, ["ensemble", "params"], Conditions(batch, None, 0))
    assert set(ask(dead).values) == {"params"}
    with pytest.raises(CandidateError, match="dead"):
        Evaluator(space, task, ["ensemble"], Conditions(batch, None, 0))(dead)


def test_a_space_of_dead_students_is_refused_with_the_reason(task, batch):
    space = Nb201Space(Nb201Config(channels=4, cells=1))
    space.genes = tuple(gene._replace(choices=(0,)) for gene in space.genes)
    with pytest.raises(FailedError, match=r"none of 1 random students of space 'nb201' .*dead"):
        Evaluator(space, task, ["ensemble"], Conditions(batch, None, 0))


def test_zen_equals_the_definition_written_out(space, task, batch):
    """Batch norms by hand, in double precision: their input's variance, layer by layer."""
    architecture = space.parse("1-1-1/4-8-16")
    found = Evaluator(space, task, ["zen"], Conditions(batch, None, 0))(architecture).values["zen"]
    seed = derive_seed(0, architecture.key, "gaussian", 0)
    network = space.build(architecture, task)
    initialise(network, "gaussian", seed)
    network = network.double()
    generator = torch.Generator().manual_seed(derive_seed(seed, "zen"))
    x, e = (torch.randn(batch.inputs.shape, generator=generator).double() for _ in range(2))

    def through(x, deviations):
        def norm(x):
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            deviations.append(float(variance.mean().sqrt()))
            return (x - mean) / (variance + 1e-5).sqrt()

        x = norm(network.conv1(x)).relu()
        for layer in (network.layer1, network.layer2, network.layer3):
            (block,) = layer
            hidden = norm(block.conv1(x)).relu()
            hidden = norm(block.conv2(hidden))
            projected = isinstance(block.shortcut, torch.nn.Sequential)
            x = (hidden + (norm(block.shortcut[0](x)) if projected else x)).relu()
        return x

    deviations = []
    with torch.no_grad():
        features = through(x, deviations)
        moved = through(x + 1e-2 * e, [])
        distance = (moved - features).square().sum((1, 2, 3)).sqrt().mean()
    assert found == pytest.approx(math.log(float(distance)) + sum(map(math.log, deviations)), rel=1e-4)
