"""The causal_transformer space: no token looks ahead, a cache changes nothing, tied weights are counted once."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.conformance.samples import language_task
from edgestill.pipeline.networks.attention import Cache
from edgestill.pipeline.networks.network import look
from edgestill.search.spaces import CausalTransformerSpace

SPACE = CausalTransformerSpace()
TASK = language_task(length=10, tokens=20)


@pytest.fixture(params=["d2h2x8f2t0", "d1h3x5f1t1"])
def student(request):
    return SPACE.build(SPACE.parse(request.param), TASK).eval()


def test_a_state_does_not_change_with_the_tokens_behind_it(student):
    tokens = torch.randint(1, 20, (4, 9))
    with torch.no_grad():
        whole, begun = student.states(tokens), student.states(tokens[:, :5])
    assert torch.allclose(whole[:, :5], begun, atol=1e-6)


def test_the_answer_is_that_at_the_last_token_whatever_the_padding(student):
    tokens = torch.randint(1, 20, (4, 7))
    rows = torch.tensor([[n, 6] for n in range(4)])
    with torch.no_grad():
        expected = look(student, tokens, rows).logits
        assert torch.allclose(student(tokens), expected, atol=1e-6)
        assert torch.allclose(student(F.pad(tokens, (0, 3))), expected, atol=1e-6)


def test_going_on_from_a_cache_gives_the_states_of_the_whole_text(student):
    tokens = torch.randint(1, 20, (3, 8))
    layers, heads, width = student.cache_shape
    past, found = torch.zeros(3, layers, 2, heads, 0, width), []
    with torch.no_grad():
        for part in tokens.split((4, 1, 3), dim=1):
            cache = Cache(past)
            found.append(student.states(part, cache))
            past = cache.present()
        assert torch.allclose(torch.cat(found, 1), student.states(tokens), atol=1e-5)
    assert past.shape[4] == 8


def test_tied_weights_are_one_parameter_of_about_unit_logits():
    tied, own = (SPACE.build(SPACE.parse(f"d1h4x8f1t{tied}"), TASK) for tied in (1, 0))
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (tied, own)]
    assert count[1] - count[0] == 20 * 32
    assert tied.linear.weight is tied.embedding.weight
    with torch.no_grad():
        assert 0.5 < float(tied(torch.randint(1, 20, (64, 9))).std()) < 2
