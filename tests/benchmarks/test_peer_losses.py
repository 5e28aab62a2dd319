"""benchmarks/peers/losses.py runs others' source as it stands, and tells an equal loss from another."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
SOURCE = """
import not_installed_here
from .base import Other

class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x.cuda() + torch.zeros(2, device="cuda")

def trained(a):
    for _ in loader:
        first = a + 1
        second = first * factor
        first = not_installed_here
"""
OURS = """
def ofa_loss(s, t, mask, eps):
    target = (t.softmax(1) + mask) ** eps - mask
    return -(target * s.log_softmax(1)).sum(1).mean()
"""


@pytest.fixture(scope="module")
def load():
    before = set(sys.modules)
    sys.path.insert(0, str(PEERS))
    yield importlib.import_module
    sys.path.remove(str(PEERS))
    for name in set(sys.modules) - before:
        if str(PEERS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(SOURCE)
    return path


def test_a_class_of_a_file_runs_on_the_cpu_without_what_else_the_file_imports(load, file):
    doubled = load("released").definitions(file, "Doubled")["Doubled"]()
    assert doubled(torch.tensor([1.0, 3.0])).tolist() == [2.0, 6.0]


def test_the_first_assignments_to_names_within_a_function_run_one_after_the_other(load, file):
    lines = load("released").assignments(file, "trained", "first", "second")
    assert lines(a=2, factor=5) == 15


def test_a_file_or_a_name_that_is_missing_is_told(load, file, tmp_path):
    released = load("released")
    with pytest.raises(released.NotHere, match="Tripled"):
        released.definitions(file, "Tripled")
    with pytest.raises(released.NotHere, match="elsewhere"):
        released.assignments(tmp_path / "elsewhere.py", "trained", "first")


@pytest.mark.parametrize(("source", "is_equal"), [(OURS, True), (OURS.replace(" - mask", ""), False)])
def test_a_loss_of_the_same_form_is_equal_and_another_is_not(load, tmp_path, monkeypatch, source, is_equal):
    losses = load("losses")
    monkeypatch.setattr(losses, "_SIZES", (8, 5, 4))
    monkeypatch.setattr(losses, "_LEAST_SECONDS", 1e-6)
    (tmp_path / "OFAKD" / "distillers").mkdir(parents=True)
    (tmp_path / "OFAKD" / "distillers" / "ofa.py").write_text(source)
    [pair] = [pair for pair in losses.PAIRS if pair.ours == "`ofa`"]
    found = losses.compared(pair, tmp_path, turns=3)
    assert found.is_equal is is_equal
    assert (found.gradient < 1e-12) is is_equal
    assert found.ours_ms > 0
    assert "| `ofa` | OFAKD | float64 |" in losses.table([found])


def test_without_a_folder_or_its_files_a_pair_is_left_out(load, tmp_path):
    losses = load("losses")
    for pair in losses.PAIRS:
        for folder in (None, tmp_path):
            with pytest.raises(load("released").NotHere):
                losses.compared(pair, folder, turns=1)
