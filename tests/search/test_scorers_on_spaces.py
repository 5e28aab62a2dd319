"""Every scorer of the table on every space of the table: a finite score, or none for a reason that is written down."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.networks.text_transformer import sinusoids
from edgestill.search.conformance import scorers
from edgestill.search.scorers import SCORERS
from edgestill.search.scorers.az_trainability import gradient_correlation
from edgestill.search.scorers.synflow import synaptic_flow
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.spaces import SPACES, ResNetSpace, TextTransformerSpace, VitSpace

# (scorer, space): why there is no score where the teacher is a ResNet of three stages, or for text another student.
UNDEFINED = {
    ("diswot_stages", "mobile"): "16 x 16 pixels are halved once, so that there are two stages",
    ("diswot_stages", "vit"): "tokens are of one stage",
    ("diswot_stages", "backbones"): "there are more stages than the teacher's three",
    ("meco", "backbones"): "a last map of one pixel cannot be normalised over one image",
    ("zen", "vit"): "there is no batch norm",
    ("zen", "text_transformer"): "it reads no images, and there is no batch norm",
    ("zen", "layers_of_teacher"): "its teacher reads no images, and there is no batch norm",
    ("meco", "layers_of_teacher"): "the student is wider than the first sequence is long",
    ("meco", "text_transformer"): "the student is wider than the first sequence is long",
    ("meco", "causal_transformer"): "the student is wider than the first sequence is long",
    ("zen", "causal_transformer"): "it reads no images, and there is no batch norm",
}


@pytest.fixture(scope="module")
def keep():
    """What is prepared is prepared once for all tests here."""
    known = {}

    def find(key, kind, compute):
        known[key] = known.get(key) or compute()
        return known[key]

    return find


@pytest.fixture
def setting(small_space, make_task_for, make_batch):
    """A space's name to (space, task, batch, a teacher whose embedding is as wide as the student's, student)."""

    def make(name):
        space = small_space(name)
        task = make_task_for(space, 1, 16)
        student = space.make({gene.name: gene.choices[-1] for gene in space.genes})
        width = space.build(student, task).embedding_dim
        if space.inputs != "image":
            teacher = space.build(student, task)
        else:
            teacher = ResNetSpace().build(ResNetSpace().parse(f"1-2-1/4-6-{width}"), task)
        return space, task, make_batch(task, 12), teacher, student

    return make


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("check", scorers.CHECKS, ids=lambda check: check.__name__)
def test_every_scorer_passes(check, name):
    check(SCORERS[name])


@pytest.mark.parametrize("space_name", SPACES)
@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_scores_every_space_or_says_that_it_has_no_score(name, space_name, setting, keep):
    space, task, batch, teacher, student = setting(space_name)
    evaluator = Evaluator(space, task, [name], Conditions(batch, teacher, 0), Means(keep=keep))
    if (name, space_name) in UNDEFINED:
        with pytest.raises(CandidateError, match="no finite score"):
            evaluator(student)
    else:
        assert list(evaluator(student).values) == [name]


@pytest.mark.parametrize("space_name", ["mobile", "vit", "text_transformer"])
def test_all_scorers_together_score_as_each_does_alone(space_name, setting, keep):
    space, task, batch, teacher, student = setting(space_name)

    def scored(*names):
        given = copy.deepcopy(teacher)
        return Evaluator(space, task, names, Conditions(batch, given, 0), Means(keep=keep))(student).values

    together = scored(*SCORERS)
    assert together == {name: scored(name)[name] for name in SCORERS if (name, space_name) not in UNDEFINED}


@pytest.mark.parametrize("space_name", ["mobile", "vit", "text_transformer"])
def test_scores_depend_on_the_seed_alone_whatever_memory_held(space_name, setting):
    """A weight that `initialise` forgets would hold what was in memory before, or what the global generator gives."""
    space, task, batch, teacher, student = setting(space_name)
    names = ["diswot_relation", "jacov", "synflow", "zico"]
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        junk = [torch.full((size,), 7.0 * (seed + 1)) for size in (64, 256, 1024, 4096)]
        del junk
        found.append(Evaluator(space, task, names, Conditions(batch, copy.deepcopy(teacher), 0))(student).values)
    assert found[0] == found[1] == found[2]


def test_meco_takes_tokens_as_positions_and_leaves_padding_out(make_token_task, make_batch):
    """Against numpy on the outputs of the trimmed sequence, module by module."""
    space, task = TextTransformerSpace(), make_token_task(length=30)
    batch, architecture = make_batch(task, 4), space.parse("d1h1x4f2")
    batch.inputs[0, 17:] = 0
    student = space.build(architecture, task).train()
    initialise(student, "kaiming", derive_seed(0, architecture.key, "kaiming", 0))
    caught = []
    for name, module in student.named_modules():
        if name:
            module.register_forward_hook(lambda module, given, output: caught.append(output.detach()))
    student(batch.inputs[:1, :17])
    expected = sum(
        np.linalg.eigvalsh(np.corrcoef(output[0].T.double().numpy()))[0] for output in caught if output.dim() == 3
    )
    found = Evaluator(space, task, ["meco"], Conditions(batch, None, 0))(architecture).values["meco"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found > 0.01


def test_meco_has_no_score_where_every_module_is_wider_than_the_sequence(make_token_task, make_batch):
    space, task = TextTransformerSpace(), make_token_task(length=8)
    with pytest.raises(CandidateError, match="meco"):
        Evaluator(space, task, ["meco"], Conditions(make_batch(task, 4), None, 0))(space.parse("d1h1x8f2"))


def test_trainability_of_tokens_equals_that_of_the_same_features_as_a_map():
    g_in, g_out = torch.randn(3, 5, 4), torch.randn(3, 5, 6)
    as_maps = [g.transpose(1, 2).unsqueeze(3) for g in (g_in, g_out)]
    assert torch.allclose(gradient_correlation(g_in, g_out), gradient_correlation(*as_maps), atol=1e-6)


def test_relations_of_tokens_are_those_of_their_means_and_compare_with_a_networks_of_maps(make_task, make_batch):
    space, task = VitSpace(), make_task()
    batch, architecture = make_batch(task, 6), VitSpace().parse("d1h2x8f2g4")
    teacher = ResNetSpace().build(ResNetSpace().parse("1-1-1/4-6-8"), task)
    found = Evaluator(space, task, ["diswot_relation"], Conditions(batch, teacher, 0))(architecture)
    student = space.build(architecture, task)
    initialise(student, "gaussian", derive_seed(0, architecture.key, "gaussian", 0))
    with torch.no_grad():
        pooled = student.forward_features(batch.inputs).mean(1)
        maps = teacher.train().forward_features(batch.inputs).flatten(1)
    relations = [F.normalize(flat @ flat.T, dim=1).double() for flat in (maps, pooled)]
    expected = -float((relations[0] - relations[1]).square().sum()) / 36
    assert found.values["diswot_relation"] == pytest.approx(expected, rel=1e-4)


def test_diswot_of_the_teacher_itself_is_0_on_tokens(make_token_task, make_batch):
    space, task = TextTransformerSpace(), make_token_task()
    batch, architecture = make_batch(task, 8), space.parse("d2h2x8f2")
    teacher = space.build(architecture, task)
    initialise(teacher, "gaussian", derive_seed(0, architecture.key, "gaussian", 0))
    names = ["diswot", "diswot_semantic", "diswot_relation", "diswot_stages"]
    found = Evaluator(space, task, names, Conditions(batch, teacher, 0, trained=True))(architecture).values
    assert found == pytest.approx(dict.fromkeys(names, 0), abs=1e-12)


def test_synflow_of_a_transformer_equals_the_definition_by_differences(make_token_task):
    task = make_token_task(length=5)
    student = TextTransformerSpace().build(TextTransformerSpace().parse("d1h1x4f1"), task)
    initialise(student, "kaiming", 0)
    assert synaptic_flow(student, torch.Size((5,)), are_ids=True) == pytest.approx(
        flow_by_differences(student, 5), rel=1e-5
    )


def flow_by_differences(student, length, step=1e-6):
    """sum |theta dR / dtheta|, a weight at a time, by central differences on the positive network."""
    layers = {name: m for name, m in student.named_modules() if isinstance(m, torch.nn.Linear)}
    weights = {name: layer.weight.detach().double().abs() for name, layer in layers.items()}

    def through(name, inputs):
        return inputs @ weights[name].T

    def output():
        tokens = torch.ones(length, 4, dtype=torch.float64)
        tokens = tokens + sinusoids(tokens[None])
        query, key, value = (through(f"layers.0.attention.{part}", tokens) for part in ("query", "key", "value"))
        mixed = (query @ key.T / 2).softmax(1) @ value
        tokens = tokens + through("layers.0.attention.out", mixed)
        hidden = F.gelu(through("layers.0.feed_forward.0", tokens))
        tokens = tokens + through("layers.0.feed_forward.2", hidden)
        return float(through("linear", tokens.mean(0)).sum())

    total = 0.0
    for weight in weights.values():
        flat = weight.view(-1)
        for i in range(flat.numel()):
            before = float(flat[i])
            values = []
            for sign in (1, -1):
                flat[i] = before * (1 + sign * step)
                values.append(output())
            flat[i] = before
            total += abs(values[0] - values[1]) / (2 * step)
    return total
