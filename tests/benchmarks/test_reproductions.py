"""benchmarks/reproductions.py shuffles the classes but the label, and tells differences from its first case."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from edgestill.pipeline.data.splits import Batch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def reproductions():
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("reproductions")
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")) or name == "lib":
            del sys.modules[name]


def test_all_classes_but_the_label_change_places_for_an_image_always_in_the_same_way(reproductions):
    logits, targets = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    batch = Batch(torch.zeros(6, 1, 2, 2), targets, torch.arange(10, 16))
    found = reproductions.shuffled(logits, batch)
    places = torch.arange(6)
    assert torch.equal(found[places, targets], logits[places, targets])
    assert torch.equal(found.sort(1).values, logits.sort(1).values)
    assert not torch.equal(found, logits)
    last = Batch(batch.inputs[5:], targets[5:], batch.index[5:])
    assert torch.equal(reproductions.shuffled(logits[5:], last), found[5:])


def test_differences_are_from_the_first_case(reproductions):
    rows = [{"one": {"bits": 3.0}, "other": {"bits": 1.0}}, {"one": {"bits": 5.0}, "other": {"bits": 3.0}}]
    assert reproductions.table(rows).splitlines()[2:] == [
        "| one | 4 ± 1.4 | – |",
        "| other | 2 ± 1.4 | -2.00 ± 0.00 |",
    ]
