"""The house stays in its bounds: circles, floors, modules, folders. What is beyond them today may only shrink."""

import sys
from pathlib import Path

import networkx as nx
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import house

# Module, folder or package -> its lines, modules or floors when the bounds were set.
LONG: dict[str, int] = {}
FULL: dict[str, int] = {}
HIGH: dict[str, int] = {"flows": 20}
CIRCLES: tuple[set[str], ...] = ()


@pytest.mark.parametrize("package", house.PACKAGES)
def test_no_module_is_long_and_no_folder_full(package):
    for name, lines in house.module_lines(package).items():
        assert lines <= LONG.get(name, house.MOST_LINES), name
    for name, count in house.folders(package).items():
        assert count <= FULL.get(name, house.MOST_MODULES), name


@pytest.mark.parametrize("package", house.PACKAGES)
def test_no_tower_is_high(package):
    assert len(house.floors_of(house.imports(), package)) <= HIGH.get(package, house.MOST_FLOORS)


def test_no_modules_import_each_other_even_for_types():
    for circle in house.circles(house.imports()):
        assert any(known <= circle for known in CIRCLES), circle


def test_what_is_listed_as_beyond_a_bound_still_is():
    graph = house.imports()
    lines = {name: count for package in house.PACKAGES for name, count in house.module_lines(package).items()}
    modules = {name: count for package in house.PACKAGES for name, count in house.folders(package).items()}
    floors = {package: len(house.floors_of(graph, package)) for package in house.PACKAGES}
    bounds = (lines, house.MOST_LINES, LONG), (modules, house.MOST_MODULES, FULL), (floors, house.MOST_FLOORS, HIGH)
    for counts, most, listed in bounds:
        assert {name for name, count in counts.items() if count > most} == set(listed)
    assert len(house.circles(graph)) == len(CIRCLES)


def test_floors_and_circles_are_those_of_a_graph_drawn_by_hand():
    beside = {"a.two": ["a.one", "a.three"], "a.three": ["a.two"]}
    graph = nx.DiGraph({"a": [], "a.one": ["a"], **beside, "a.top": ["a.two", "b"]})
    assert house.circles(graph) == [{"a.two", "a.three"}]
    assert house.floors_of(graph, "a") == [{"a"}, {"a.one"}, {"a.two", "a.three"}, {"a.top"}]
