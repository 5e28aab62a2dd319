"""The text_transformer space: token ids in, padding without any influence, trained and shipped like the others."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.export.onnx.sessions import open_session
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import initialise, look
from edgestill.pipeline.networks.text_transformer import sinusoids
from edgestill.pipeline.training.fit import TrainingConfig, fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.observe import observe
from edgestill.search.spaces import MobileSpace, ResNetSpace, TextTransformerSpace, VitSpace

SPACE = TextTransformerSpace()


@pytest.fixture
def task(make_token_task):
    return make_token_task()


@pytest.fixture
def student(task):
    student = SPACE.build(SPACE.parse("d2h2x8f2"), task).eval()
    initialise(student, "kaiming", 0)
    return student


def test_logits_do_not_change_when_padding_is_appended(student):
    tokens = torch.randint(1, 20, (4, 7))
    with torch.no_grad():
        alone, padded = look(student, tokens), look(student, F.pad(tokens, (0, 5)))
    assert torch.allclose(alone.logits, padded.logits, atol=1e-6)
    assert torch.allclose(alone.features, padded.features[:, :7], atol=1e-6)
    assert not padded.features[:, 7:].any()


def test_a_sequence_means_the_same_whatever_it_is_batched_with(student):
    short, long = torch.randint(1, 20, (1, 4)), torch.randint(1, 20, (1, 9))
    with torch.no_grad():
        together = student(torch.cat([F.pad(short, (0, 5)), long]))
        assert torch.allclose(together, torch.cat([student(short), student(long)]), atol=1e-6)


def test_nothing_but_padding_gives_the_classifiers_bias(student):
    with torch.no_grad():
        student.linear.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        assert torch.equal(student(torch.zeros(1, 6, dtype=torch.int64)), torch.tensor([[1.0, 2.0, 3.0]]))


def test_the_embedding_is_the_mean_over_tokens(student):
    tokens = torch.tensor([[3, 4, 5, 0, 0], [3, 0, 0, 0, 0]])
    with torch.no_grad():
        view = look(student, tokens)
    expected = torch.stack([view.features[0, :3].mean(0), view.features[1, 0]])
    assert torch.allclose(view.embedding, expected, atol=1e-6)


def test_the_order_of_tokens_matters(student):
    tokens = torch.tensor([[3, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        assert (student(tokens) - student(tokens.flip(1))).abs().max() > 1e-4


def test_positions_are_the_published_sinusoids():
    found = sinusoids(torch.zeros(1, 7, 6))
    for t in range(7):
        for i in range(3):
            angle = torch.tensor(t / 10_000 ** (2 * i / 6))
            assert found[t, 2 * i] == pytest.approx(angle.sin().item(), abs=1e-6)
            assert found[t, 2 * i + 1] == pytest.approx(angle.cos().item(), abs=1e-6)


def test_costs_are_those_of_the_formula(make_token_task):
    length, vocabulary, classes, depth, heads, head_width, ratio = 12, 50, 4, 3, 2, 8, 3
    width = heads * head_width
    task = make_token_task(length, vocabulary, classes)
    block = 4 * (width**2 + width) + 2 * ratio * width**2 + ratio * width + width + 4 * width
    params = vocabulary * width + depth * block + 2 * width + width * classes + classes
    flops = depth * (length * (4 + 2 * ratio) * width**2 + 2 * length**2 * width) + width * classes
    cost = measure_cost(lambda: SPACE.build(SPACE.parse("d3h2x8f3"), task), task.input_shape, task.input_dtype)
    assert (cost.params, cost.flops) == (params, flops)


def test_token_ids_are_differentiated_by_their_embedding(student, make_batch, task):
    """Against autograd on the trunk written out; padding has no influence, so its gradient is 0."""
    tokens = make_batch(task, 6).inputs
    graph = observe(student, tokens, blocks=True, graph=True).graph
    (found,) = torch.autograd.grad(graph.logits.sum(), graph.inputs)
    embedded = student.embedding(tokens).detach().requires_grad_()
    hidden, mask = embedded + sinusoids(embedded), (tokens == 0)[:, None, None, :] * -1e30
    for block in student.blocks():
        hidden = block(hidden, mask)
    features = student.norm(hidden) * (tokens != 0)[..., None]
    pooled = features.sum(1) / (tokens != 0).sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(student.linear(pooled).sum(), embedded)
    assert torch.equal(graph.inputs, embedded)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not found[tokens == 0].any()
    assert found[tokens != 0].any(dim=1).all()
    assert not any(module._forward_hooks for module in student.modules())


@pytest.mark.parametrize("name", ["diswot_relation", "diswot_semantic", "jacov", "synflow"])
def test_appended_padding_changes_no_score_that_leaves_it_out(name, make_token_task, make_batch):
    """The semantic metric reads the classifier's gradient; synflow reads no input at all, but its length."""
    task = make_token_task()
    batch = make_batch(task, 8)
    longer = batch._replace(inputs=F.pad(batch.inputs, (0, 3)))
    teacher, architecture = SPACE.build(SPACE.parse("d3h2x8f2"), task), SPACE.parse("d2h2x8f2")
    one, other = (
        Evaluator(SPACE, task, [name], Conditions(given, teacher, 0))(architecture).values[name]
        for given in (batch, longer)
    )
    assert one == pytest.approx(other, rel=0.5 if name == "synflow" else 1e-4)


def test_a_student_learns_a_task_of_tokens(task, make_split, student):
    train, validation = make_split(task, 90, seed=1), make_split(task, 60, seed=2)
    config = TrainingConfig(epochs=8, batch_size=15, optimizer="adamw", learning_rate=3e-3)
    before = F.cross_entropy(student(train.images), train.targets).item()
    result = fit(student, Supervised(), train, validation, config, seed=0, device=torch.device("cpu"))
    assert result.curve[-1].loss < before
    assert result.best.accuracy > 0.7  # chance is 1/3


def test_a_text_student_ships_as_onnx_with_parity(task, student, make_split, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(student, task.inputs, 20))
    given = {put.name: (put.type, put.shape) for put in open_session(path).get_inputs()}
    sides = ("tensor(int64)", ["batch", "length"])
    assert given == {"input_ids": sides, "attention_mask": sides}
    parity = check_parity(student, path, {"validation": make_split(task, 40, seed=2)}, task.inputs)
    assert parity.top1_agreement == 1
    assert parity.checked == ("validation", "batch size 1", "batch size 7", "padding", "noise", "shorter")


def test_spaces_refuse_inputs_of_another_kind(task, make_task, make_batch):
    for space in (ResNetSpace(), MobileSpace(), VitSpace()):
        with pytest.raises(ConfigError, match=f"{space.name} is for image inputs, and the data's are text"):
            Evaluator(space, task, ["params"], Conditions(make_batch(task), None, 0))
    with pytest.raises(ConfigError, match="text_transformer is for text inputs, and the data's are image"):
        Evaluator(SPACE, make_task(), ["params"], Conditions(make_batch(make_task()), None, 0))
