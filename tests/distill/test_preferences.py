"""Methods of preference: DCKD's three means, ADPA's advantage, and the alignment that it rests on."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.conformance.prepared import prepared
from edgestill.distill.methods.language.adpa import ADPA, expected_advantage
from edgestill.distill.methods.language.alignment import aligned, preference_loss
from edgestill.distill.methods.language.dckd import DCKD, DCKDConfig
from edgestill.pipeline.conformance.samples import language_task, splits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.training.exposure import answer_losses

TASK = language_task()


@pytest.fixture(scope="module")
def data():
    return splits(TASK)


def network(seed, width=6):
    with drawn_from(seed):
        return CausalTransformer(TASK, depth=1, heads=2, head_width=width, feed_forward=1).eval()


def places(text):
    """Yield each prefix of an answer with the token that follows."""
    ids = [i for i in text.tolist() if i != PADDING]
    for at in range(ids.index(START) + 1, len(ids)):
        yield ids[:at], ids[at]


def rows(model, texts):
    """Log-probabilities after each prefix of the answers, one by one, and the tokens that follow."""
    pairs = [pair for text in texts for pair in places(text)]
    return torch.stack([model(torch.tensor([ids]))[0].log_softmax(0) for ids, _ in pairs]), [y for _, y in pairs]


@torch.no_grad()
def test_dckd_is_three_means_each_over_its_own_tokens(data):
    recipe, teacher, student, _ = prepared(DCKD)
    recipe.methods[0].config = DCKDConfig(chosen_weight=0.5, rejected_weight=2.0)
    index = torch.tensor([3, 8, 1])
    chosen, rejected = data.train.images[index], data.train.rejected[index]
    with evaluating(student, teacher):
        found = recipe.loss(student, recipe.prepare_batch(data.train.batch(index), torch.Generator()))
        (s, ys), (t, _) = rows(student, chosen), rows(teacher, chosen)
        kl_chosen = (t.exp() * (t - s)).sum(1).mean()
        label = -s[torch.arange(len(ys)), ys].mean()
        (s, _), (t, _) = rows(student, rejected), rows(teacher, rejected)
        kl_rejected = (t.exp() * (t - s)).sum(1).mean()
    assert float(found["cross_entropy"]) == pytest.approx(float(label), rel=1e-5)
    assert float(found["distillation"]) == pytest.approx(float(0.5 * kl_chosen + 2 * kl_rejected), rel=1e-5)


@torch.no_grad()
def test_adpa_is_the_labels_loss_less_the_advantage_expected_on_the_students_own_answers(data):
    recipe, teacher, student, _ = prepared(ADPA)
    [method] = recipe.methods
    index = torch.tensor([2, 5])
    with evaluating(student, teacher):
        given = recipe.prepare_batch(data.train.batch(index), torch.Generator())
        found = recipe.loss(student, given)["adpa"]
        s, ys = rows(student, data.train.images[index])
        label = -s[torch.arange(len(ys)), ys].mean()
        (s, _), (t, _), (a, _) = (rows(one, method._answers[index]) for one in (student, teacher, method._aligned))
        gain = (s.exp() * (a - t)).sum(1).mean()
    assert float(abs(gain)) > 1e-5
    assert float(found) == pytest.approx(float(label - 0.5 * gain), rel=1e-4)


def test_a_constant_added_to_the_advantage_moves_no_gradient():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    advantage = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, moved = (torch.autograd.grad(expected_advantage(logits, advantage + c).sum(), logits)[0] for c in (0.0, 7.0))
    torch.testing.assert_close(plain, moved)
    assert float(plain.abs().max()) > 0.01
    p = logits.detach().softmax(1)
    torch.testing.assert_close(plain, p * (advantage - (p * advantage).sum(1, keepdim=True)))


def test_without_labels_the_advantage_ends_in_its_largest_token():
    logits = torch.zeros(1, 5, requires_grad=True)
    advantage = torch.tensor([[0.1, 0.5, -1.0, 0.2, 0.0]])
    for _ in range(400):
        (gradient,) = torch.autograd.grad(expected_advantage(logits, advantage).sum(), logits)
        logits.data += 5 * gradient
    assert float(logits.detach().softmax(1)[0, 1]) > 0.99


@torch.no_grad()
def test_a_texts_log_likelihood_is_the_sum_over_its_answer(data):
    model, texts = network(1), data.train.images[:4]
    expected = []
    for text in texts:
        s, ys = rows(model, [text])
        expected.append(float(s[torch.arange(len(ys)), ys].sum()))
    assert (-answer_losses(model, texts)).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_preferences_starts_at_log_2_and_alignment_lowers_it_without_touching_the_reference(data):
    model, chosen, rejected = network(1), data.train.images, data.train.rejected
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert float(preference_loss(model, model, chosen, rejected, 0.1).detach()) == pytest.approx(math.log(2))
    made = aligned(model, chosen, rejected, beta=0.1, epochs=3, learning_rate=3e-3, batch_size=32, seed=0)
    with torch.no_grad():
        assert float(preference_loss(made, model, chosen, rejected, 0.1)) < math.log(2) - 0.02
        margin = answer_losses(made, rejected) - answer_losses(made, chosen)
        margin -= answer_losses(model, rejected) - answer_losses(model, chosen)
    assert float((margin > 0).float().mean()) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    expected = -F.logsigmoid(0.1 * margin).mean()
    assert float(preference_loss(made, model, chosen, rejected, 0.1).detach()) == pytest.approx(
        float(expected), rel=1e-5
    )


@pytest.mark.parametrize("kind", [DCKD, ADPA])
def test_data_without_pairs_are_refused_with_the_key_to_set(data, kind):
    with pytest.raises(ConfigError, match=r"data\.rejected_key"):
        kind().check(TASK, dataclasses.replace(data.train, rejected=None))
