"""Every scorer of the table: its contract, and the baselines against definitions of their own."""

import contextlib
import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.network import initialise
from edgestill.search.scorers import SCORERS, ScoringContext, Student
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.space import Architecture, Gene
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig, ResNetSpace

every_scorer = pytest.mark.parametrize("name", SCORERS)


TEACHERS = ResNetSpace(ResNetConfig(blocks=((2,), (2,), (2,)), widths=((4,), (8,), (16,))))


class LiveNb201Space(Nb201Space):
    """Cells in which every edge leads somewhere: what a dead one scores is tested apart."""

    def __init__(self):
        super().__init__(Nb201Config(channels=4, cells=1))
        self.genes = tuple(Gene(gene.name, gene.choices[1:]) for gene in self.genes)


@pytest.fixture(params=["resnet", "nb201"])
def any_space(request):
    """Of each kind, students as wide as the teacher, so that every scorer has a score."""
    if request.param == "nb201":
        return LiveNb201Space()
    return ResNetSpace(ResNetConfig(blocks=((1, 2), (1, 2), (1, 2)), widths=((4, 6), (8,), (16,))))


@pytest.fixture
def space():
    return ResNetSpace(ResNetConfig(blocks=((1, 2), (1, 2), (1, 2)), widths=((4, 6), (8,), (16,))))


@pytest.fixture
def task(make_task):
    return make_task(channels=3, side=12, classes=5)


@pytest.fixture
def batch(task, make_batch):
    return make_batch(task, 16)


@pytest.fixture(scope="module")
def keep():
    """Computed once for all tests here: they are tested in test_ensemble.py."""
    known = {}

    def find(key, kind, compute):
        known[key] = known.get(key) or compute()
        return known[key]

    return find


@pytest.fixture
def evaluator(task, batch, keep):
    """Scorer names (and options) to an evaluator with a teacher of its own, always from the same weights."""

    def make(space, *names, seed=0, teacher=None, **options):
        if teacher is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                teacher = make_teacher(task)
        return Evaluator(space, task, names, Conditions(batch, teacher, seed, **options), Means(keep=keep))

    return make


def make_teacher(task):
    return TEACHERS.build(TEACHERS.parse("2-2-2/4-8-16"), task)


def some(space, count, seed=0):
    rng = random.Random(seed)
    return list({a.key: a for a in (space.sample(rng) for _ in range(4 * count))}.values())[:count]


@every_scorer
def test_the_same_seed_gives_the_same_bits(name, evaluator, any_space):
    for architecture in some(any_space, 3):
        torch.manual_seed(random.randrange(10**6))  # the global generator takes no part
        assert evaluator(any_space, name)(architecture).values == evaluator(any_space, name)(architecture).values


@every_scorer
def test_a_score_does_not_depend_on_the_order_nor_on_the_other_candidates(name, evaluator, any_space):
    candidates = some(any_space, 5)
    forwards, backwards = evaluator(any_space, name), evaluator(any_space, name)
    one = {a.key: forwards(a).values[name] for a in candidates}
    other = {a.key: backwards(a).values[name] for a in reversed(candidates)}
    alone = {a.key: evaluator(any_space, name)(a).values[name] for a in candidates}
    assert one == other == alone


@every_scorer
def test_a_score_does_not_depend_on_which_others_are_asked(name, evaluator, any_space):
    candidate = some(any_space, 1)[0]
    assert evaluator(any_space, name)(candidate).values[name] == evaluator(any_space, *SCORERS)(candidate).values[name]
    assert (
        evaluator(any_space, name)(candidate).values[name]
        == evaluator(any_space, *reversed(list(SCORERS)))(candidate).values[name]
    )


@every_scorer
def test_scores_of_ordinary_students_are_finite_and_differ(name, evaluator, any_space):
    ask = evaluator(any_space, name)
    found = [ask(a).values[name] for a in some(any_space, 6)]
    assert all(math.isfinite(value) for value in found)
    assert len(set(found)) > 1


@every_scorer
def test_scoring_leaves_the_teacher_as_it_was(name, evaluator, any_space, task):
    teacher = make_teacher(task)
    ask = evaluator(any_space, name, teacher=teacher)
    before = copy.deepcopy(teacher.state_dict())
    for architecture in some(any_space, 4):
        ask(architecture)
    after = teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@every_scorer
def test_a_trained_teacher_is_not_touched_at_all(name, evaluator, any_space, task):
    teacher = make_teacher(task).eval()
    before = copy.deepcopy(teacher.state_dict())
    evaluator(any_space, name, teacher=teacher, trained=True)(some(any_space, 1)[0])
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not teacher.training


@every_scorer
def test_another_seed_gives_another_score_where_chance_takes_part(name, evaluator, any_space):
    candidate = some(any_space, 1)[0]
    scores = {evaluator(any_space, name, seed=seed)(candidate).values[name] for seed in range(3)}
    assert len(scores) == (1 if name in ("params", "flops") else 3)


@every_scorer
def test_scoring_leaves_the_global_generator_alone(name, evaluator, any_space):
    ask = evaluator(any_space, name)
    before = torch.get_rng_state()
    ask(some(any_space, 1)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_score_of_several_draws_is_the_mean_of_single_ones(evaluator, space, task, batch):
    candidate = some(space, 1)[0]
    three = evaluator(space, "nwot", draws=3)(candidate)
    two, one = evaluator(space, "nwot", draws=2)(candidate), evaluator(space, "nwot", draws=1)(candidate)
    first = one.values["nwot"]
    second = 2 * two.values["nwot"] - first
    third = 3 * three.values["nwot"] - first - second
    assert three.std["nwot"] == pytest.approx(np.std([first, second, third]), rel=1e-6)
    assert one.std["nwot"] == 0
    assert len({first, second, third}) == 3


def test_counts_are_the_counted_costs(evaluator, space):
    ask = evaluator(space, "params", "flops")
    candidate = some(space, 1)[0]
    assert ask(candidate).values == {
        "params": float(ask.cost(candidate).params),
        "flops": float(ask.cost(candidate).flops),
    }


def test_random_scores_are_uniform_and_reproducible():
    context = ScoringContext(batch=None, teacher=None, teacher_dims=frozenset(), seed=3)
    scorer = SCORERS["random"](context)

    def draw():
        return [scorer(Student(f"key {i}", lambda: Cost(params=1, flops=1))) for i in range(2000)]

    drawn = draw()
    assert drawn == draw()
    assert all(0 <= value < 1 for value in drawn)
    deciles = np.bincount((np.array(drawn) * 10).astype(int), minlength=10)
    assert deciles.min() > 150  # 200 expected, standard deviation 13
    assert deciles.max() < 250


# NASWOT


class Tiny(nn.Module):
    """One hidden layer of each kind of ReLU that torch has."""

    num_classes = embedding_dim = 3

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.inplace = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 3)

    def forward_features(self, inputs):
        hidden = self.relu(self.conv(inputs))
        hidden = F.relu(hidden - 0.3)
        hidden = torch.relu(0.2 - hidden)
        return self.inplace((hidden - 0.1).relu() - 0.05)

    def forward_head(self, features, pre_logits=False):
        embedding = features.mean((2, 3))
        return embedding if pre_logits else self.linear(embedding)

    def get_classifier(self):
        return self.linear

    def forward(self, inputs):
        return self.forward_head(self.forward_features(inputs))


class TinySpace(ResNetSpace):
    def build(self, architecture, task):
        return Tiny()


def states_by_hand(network, inputs):
    """[B, units] of each ReLU of Tiny, written out."""
    with torch.no_grad():
        one = network.conv(inputs).clamp(min=0)
        two = (one - 0.3).clamp(min=0)
        three = (0.2 - two).clamp(min=0)
        four = (three - 0.1).clamp(min=0)
        five = (four - 0.05).clamp(min=0)
    return torch.cat([(layer > 0).flatten(1) for layer in (one, two, three, four, five)], dim=1).numpy()


def brute_force_nwot(states):
    """log |N_A - Hamming distance|, Mellor et al. 2021, eq. 2, pair by pair."""
    count, units = states.shape
    kernel = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            kernel[i, j] = units - sum(a != b for a, b in zip(states[i], states[j], strict=True))
    return np.linalg.slogdet(kernel)[1]


def test_nwot_equals_a_brute_force_hamming_kernel(task, make_batch):
    batch = make_batch(task, 6)
    space = TinySpace()
    architecture = space.sample(random.Random(0))
    found = Evaluator(space, task, ["nwot"], Conditions(batch, None, 0))(architecture).values["nwot"]
    network = Tiny()
    initialise(network, "kaiming", derive_seed(0, architecture.key, "kaiming", 0))
    assert found == pytest.approx(brute_force_nwot(states_by_hand(network, batch.inputs)), rel=1e-9)


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("seed", range(5))
def test_two_inputs_that_nwot_cannot_tell_apart_leave_no_score(size, seed, task, make_batch):
    """The kernel is singular, which rounding hides from a determinant about every other time."""
    batch = make_batch(task, size, seed)
    batch.inputs[size // 2] = batch.inputs[1]
    evaluator = Evaluator(ResNetSpace(), task, ["nwot"], Conditions(batch, None, 0))
    with pytest.raises(CandidateError, match="no finite score"):
        evaluator(ResNetSpace().parse("1-1-1/4-8-16"))


# What the evaluator refuses


class Broken(ResNetSpace):
    """Students that fail as `how` says, once they run on more than the one image that costs are counted on."""

    how = "dead"

    def build(self, architecture, task):
        network = super().build(architecture, task)
        trunk, how = network.trunk, self.how

        def failing(inputs):
            features = trunk(inputs)
            if len(inputs) == 1:
                return features
            if how == "raises":
                raise RuntimeError("out of luck\nand more")
            return {"dead": torch.ones_like(features), "nan": features * math.nan}[how]

        network.trunk = failing
        return network


@pytest.mark.parametrize("how", ["dead", "nan", "raises"])
def test_a_broken_student_has_no_score_but_a_reason(how, task, batch):
    space = Broken(ResNetConfig(widths=((4,), (8,), (16,))))
    space.how = how
    teacher = ResNetSpace().build(ResNetSpace().parse("1-1-1/4-8-16"), task)
    evaluator = Evaluator(
        space, task, ["diswot", "diswot_semantic", "diswot_relation"], Conditions(batch, teacher, 0, guard=True)
    )
    expected = {
        "dead": "^dead: its last features are the same for every input$",
        "nan": "no finite score",
        "raises": "^RuntimeError: out of luck$",
    }
    with pytest.raises(CandidateError, match=expected[how]):
        evaluator(space.sample(random.Random(0)))


def test_an_nb201_cell_that_passes_nothing_on_is_dead(task, batch, small_space):
    space = small_space("nb201")
    nothing = space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    with pytest.raises(CandidateError, match="dead"):
        Evaluator(space, task, ["nwot"], Conditions(batch, None, 0, guard=True))(nothing)


@every_scorer
def test_a_dead_cell_and_one_with_edges_that_lead_nowhere_never_break_a_scorer(name, evaluator, small_space):
    space = small_space("nb201")
    ask = evaluator(space, name)
    for cell in (
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    ):
        with contextlib.suppress(CandidateError):  # other errors are not
            assert math.isfinite(ask(space.parse(cell)).values[name])


@every_scorer
def test_a_scorer_leaves_the_student_as_it_was(name, any_space, task, batch, evaluator, monkeypatch):
    made = []
    build = type(any_space).build
    monkeypatch.setattr(type(any_space), "build", lambda *given: made.append(build(*given)) or made[-1])
    evaluator(any_space, name)(some(any_space, 1)[0])
    for network in made:
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not any(module._forward_hooks for module in network.modules() if isinstance(module, nn.Conv2d))


def test_initialisation_draws_what_it_says():
    network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(400, 300))
    initialise(network, "gaussian", 0)
    for layer, fan_out in ((network[0], 64 * 9), (network[3], 300)):
        initialise(network, "gaussian", 0)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.05)
        assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
        assert not layer.bias.any()
        initialise(network, "kaiming", 0)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)


def test_an_architecture_is_named_by_its_space_too():
    assert Architecture(space="a", choices={"x": 1}).key != Architecture(space="b", choices={"x": 1}).key
