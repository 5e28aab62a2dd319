"""Talking models: the terms by hand, the way of the gradient, and what orthogonal codecs lose."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.methods.features.talking import TalkingConfig
from edgestill.distill.recipe import make_recipe
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.teachers.teacher import frozen


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(widths=(8, 12, 16), **settings):
        splits = make_splits(make_task())
        teacher, student = frozen(make_network(1, widths)), make_network(2).eval()
        recipe = make_recipe([TalkingConfig(**settings)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        batch = splits.train.batch(torch.arange(9))
        return recipe.methods[0], look(teacher, batch.inputs), look(student, batch.inputs), batch, teacher

    return make


@pytest.mark.parametrize("codec", ["linear", "dense"])
def test_the_terms_are_those_of_the_docstring(prepared, codec):
    method, teacher, student, batch, network = prepared(rounds=2, temperature=2.0, codec=codec, message_width=5)
    terms = method.feature(teacher, student, batch)
    e_s, d_s, e_t, d_t = method._codecs.values()
    h_s, h_t = student.embedding, (teacher.embedding - method._mean) / method._scale
    states = ((d_s(e_t(h_t)), h_s), (d_t(e_s(h_s)), h_t), (d_s(e_s(h_s)), h_s), (d_t(e_t(h_t)), h_t))
    terms = {name: term.detach() for name, term in terms.items()}
    assert float(terms["talking_states"]) == pytest.approx(
        sum(float((a - b).square().mean()) for a, b in states), rel=1e-4
    )
    assert float(terms["talking_messages"]) == pytest.approx(float((e_s(h_s) - e_t(h_t)).square().mean()), rel=1e-4)
    message, total = e_s(h_s), 0.0
    p = (teacher.logits / 2).softmax(1)
    for _ in range(2):
        taken = d_t(message)
        answer = network.get_classifier()(taken * method._scale + method._mean)
        total += float(4 * F.kl_div((answer / 2).log_softmax(1), p, reduction="batchmean")) / 2
        message = e_s(d_s(e_t(taken)))
    assert float(terms["talking_interaction"]) == pytest.approx(total, rel=1e-4)


def test_the_interaction_reaches_the_student_through_the_frozen_teacher(prepared):
    method, teacher, student, batch, network = prepared()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = student.embedding.detach().requires_grad_()
    method.feature(teacher, student._replace(embedding=own), batch)["talking_interaction"].backward()
    assert float(own.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        network.get_classifier().weight.zero_()  # a teacher that answers nothing tells the student nothing
    again = student.embedding.detach().requires_grad_()
    method.feature(teacher, student._replace(embedding=again), batch)["talking_interaction"].backward()
    assert float(again.grad.abs().sum()) == 0


def test_without_rounds_the_codecs_terms_are_left_and_every_codec_learns_from_the_rest(prepared):
    method, teacher, student, batch, _ = prepared(rounds=0)
    terms = method.feature(teacher, student, batch)
    assert set(terms) == {"talking_messages", "talking_states"}
    sum(terms.values()).backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in method.trainable())


def test_orthogonal_codecs_of_equal_networks_lose_nothing(prepared, make_network):
    method, teacher, _, batch, _ = prepared(widths=(4, 6, 8), message_width=12)
    turn = torch.linalg.qr(torch.randn(12, 8))[0]
    with torch.no_grad():
        for name, codec in method._codecs.items():
            codec.weight.copy_(turn if name.endswith("encoder") else turn.T)
            codec.bias.zero_()
    same = teacher._replace(embedding=(teacher.embedding - method._mean) / method._scale)
    terms = method.feature(teacher, same, batch)
    assert all(abs(float(term)) < 1e-5 for term in terms.values())


def test_the_teachers_embedding_is_standardised(prepared, make_task, make_splits, make_network):
    method, *_ = prepared()
    train = make_splits(make_task()).train
    with torch.no_grad():
        seen = look(frozen(make_network(1, (8, 12, 16))), train.batch(torch.arange(90)).inputs).embedding
    scaled = (seen - method._mean) / method._scale
    assert scaled.mean(0).abs().max() < 1e-4
    assert float(scaled.var(0, correction=0).mean()) == pytest.approx(1, rel=1e-3)
