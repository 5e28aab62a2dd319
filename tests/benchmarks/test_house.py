"""The house stays in its bounds: circles, floors, modules, folders."""

import sys
from pathlib import Path

import networkx as nx

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import house


def test_no_module_is_long_no_folder_full_no_tower_high_no_circle_and_no_docstring_a_clause():
    assert house.problems(house.imports()) == []


def test_what_is_beyond_a_bound_is_told(monkeypatch):
    for name in ("MOST_LINES", "MOST_MODULES", "MOST_FLOORS"):
        monkeypatch.setattr(house, name, 3)
    monkeypatch.setattr(house, "docstrings", lambda: ("What it gives.", "Whatever comes.", "Give it."))
    graph = nx.DiGraph(house.imports())
    graph.add_edge("pipeline.errors", "flows.chain")
    found = "\n".join(house.problems(graph))
    for words in ("pipeline.errors has ", "flows/stages holds 20 modules", "search has 1", "a circle: ", "flows.chain"):
        assert words in found
    assert [line for line in found.splitlines() if "clause" in line] == [
        "a docstring begins with a clause: What it gives."
    ]


def test_floors_and_circles_are_those_of_a_graph_drawn_by_hand():
    beside = {"a.two": ["a.one", "a.three"], "a.three": ["a.two"]}
    graph = nx.DiGraph({"a": [], "a.one": ["a"], **beside, "a.top": ["a.two", "b"]})
    assert house.circles(graph) == [{"a.two", "a.three"}]
    assert house.floors_of(graph, "a") == [{"a"}, {"a.one"}, {"a.two", "a.three"}, {"a.top"}]
