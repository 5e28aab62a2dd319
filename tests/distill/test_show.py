"""How a method shows one of its examples, whatever the task's inputs are."""

import pytest
import torch

from edgestill.distill.methods.base import Context
from edgestill.pipeline.data.tokens import TokenizerConfig, make_coder


@pytest.fixture
def context(make_split):
    def make(task, decode=None):
        network = torch.nn.Identity()
        split = make_split(task, 3)
        cpu = torch.device("cpu")
        return Context(task, network, network, split, split, cpu, 0, lambda: network, lambda batch: None, decode=decode)

    return make


def test_an_image_is_shown_as_its_bytes(context, make_task):
    item = context(make_task()).show(torch.tensor([[[0.0, 1.0], [0.5, 2.0]]]), "a caption")
    assert (item.caption, item.text) == ("a caption", "")
    assert (item.pixels, item.shape) == ((0, 255, 128, 255), (1, 2, 2))


def test_token_ids_are_shown_as_the_words_that_they_came_from(context, make_token_task):
    coder = make_coder(["a moving film"], TokenizerConfig(), 9)
    row = torch.from_numpy(coder.encode(["a film"])[0])
    assert context(make_token_task(), coder.decode).show(row, "").text == "a film"
    assert context(make_token_task()).show(torch.tensor([7, 9, 0]), "").text == "7 9"
