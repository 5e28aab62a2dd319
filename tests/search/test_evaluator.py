"""Scores repeat, whatever a network draws from the generators of the process."""

import copy
import random
import sys

import numpy as np
import pytest
import torch

from edgestill.search.config import SearchConfig
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.search import find_student
from edgestill.search.spaces import SPACES, ResNetConfig, ResNetSpace

SPACE = ResNetConfig(blocks=((1, 2), (1,), (1,)), widths=((4, 6), (6,), (8,)))
BASELINES = ("meco", "zico", "synflow", "zen", "ensemble")

# A module that a spawned process can import, as it can every installed plug-in.
DRAWING = '''
import random

import numpy as np
import torch
import torch.nn.functional as F

from edgestill.search.spaces import ResNetSpace


class Drawing(torch.nn.Module):
    """Draws when it is made and at every step, from all the generators that a process has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", 1 + torch.rand(()) + random.random() + np.random.rand())

    def forward(self, inputs):
        noise = 1 + 0.1 * np.random.rand() + 0.1 * random.random()
        return F.dropout(inputs, 0.2) * noise * self.scale


def planted(network):
    network.conv1 = torch.nn.Sequential(network.conv1, Drawing())
    return network


class DrawingSpace(ResNetSpace):
    def build(self, architecture, task):
        return planted(super().build(architecture, task))
'''


@pytest.fixture
def drawing(tmp_path, monkeypatch):
    """The module above, importable here and in spawned processes."""
    (tmp_path / "drawing_plugin.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(tmp_path)
    import drawing_plugin

    yield drawing_plugin
    del sys.modules["drawing_plugin"]


@pytest.fixture
def find(drawing, monkeypatch, make_task, make_batch):
    """Search from a state of the process's generators; gives the journal, and whether it left them as they were."""
    monkeypatch.setitem(SPACES, "resnet", (ResNetConfig, drawing.DrawingSpace))
    task = make_task(classes=4)
    torch.manual_seed(0)
    teacher = drawing.planted(ResNetSpace().build(ResNetSpace().parse("1-1-1/4-6-8"), task))

    def run(state, workers=1, **changes):
        given = {"space": SPACE, "scorer": "diswot", "baselines": BASELINES, "draws": 2, "evaluations": 4}
        config = SearchConfig(**given | changes, workers=workers)
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002
        random.seed(state)
        journal = []
        find_student(config, task, make_batch(task, 16), copy.deepcopy(teacher), seed=0, record=journal.append)
        drawn = float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002
        return [{name: value for name, value in entry.items() if name != "seconds"} for entry in journal], drawn

    return run


@pytest.mark.parametrize("weights", ["trained", "random"])
def test_a_search_has_the_same_bits_whatever_was_drawn_before_and_in_any_number_of_processes(find, weights):
    first, drawn = find(1, teacher_weights=weights)
    other, drawn_later = find(2, teacher_weights=weights)
    assert first == other
    assert len(first) == 4 * (1 + len(BASELINES))
    assert not any("failure" in entry for entry in first)
    assert drawn != drawn_later
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    assert drawn == (float(torch.rand(())), float(np.random.rand()), random.random())  # noqa: NPY002
    if weights == "trained":
        assert find(3, workers=2, teacher_weights=weights)[0] == first


def test_nni_strategies_repeat_too(find):
    pytest.importorskip("nni")
    strategy = {"name": "nni_regularized", "population": 2, "sample": 1}
    journals = [find(state, strategy=strategy, baselines=(), evaluations=3)[0] for state in (1, 2)]
    assert journals[0] == journals[1]


def test_a_score_does_not_depend_on_which_others_are_asked_for(drawing, make_task, make_batch):
    space, task = drawing.DrawingSpace(SPACE), make_task(classes=4)
    names = [name for name, scorer in SCORERS.items() if not scorer.parts]
    teacher = drawing.planted(ResNetSpace().build(ResNetSpace().parse("1-1-1/4-6-8"), task))
    architecture = space.parse("1-1-1/4-6-8")

    def scores(asked):
        return Evaluator(space, task, asked, Conditions(make_batch(task, 16), teacher, 0))(architecture).values

    together = scores(names)
    for name in ("meco", "zen", "synflow", "zico", "diswot"):
        assert scores([name])[name] == together[name]
