"""The house in figures: floors, rooms, circles, long modules and functions, and how the docstrings read.

    python benchmarks/house.py [--imports]

A package's floors are the longest chain of its own modules in which each imports the next; modules that import each
other in a circle count as one. Imports for types alone count too. --imports lists each module with those that it
imports, by floor. Exit code 1: something is beyond its bound, or a docstring begins with a clause.
"""

import argparse
import ast
import re
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grimp
import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "search", "distill", "export", "flows")
MOST_FLOORS, MOST_MODULES, MOST_LINES = 10, 20, 300
_RIDDLES = re.compile(r"\b(what|that|which|whose)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"(What|Whether|Which|That|Whose)\b")


class Function(NamedTuple):
    name: str
    lines: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", action="store_true", help="list each module with those that it imports")
    listed = parser.parse_args().imports
    graph = imports()
    print(f"{'package':10} modules  floors  largest folder        longest module")
    for package in PACKAGES:
        folder, count = max(folders(package).items(), key=lambda item: item[1])
        module, lines = max(module_lines(package).items(), key=lambda item: item[1])
        floors = len(floors_of(graph, package))
        print(f"{package:10} {len(module_lines(package)):7}  {floors:6}  {folder:18} {count:2}  {module} {lines}")
    own = functions()
    sizes = sorted(function.lines for function in own)
    ninth = statistics.quantiles(sizes, n=10)[-1]
    print(f"\n{len(own):,} functions: median {statistics.median(sizes):.0f} lines, p90 {ninth:.0f}")
    for function in sorted(own, key=lambda each: -each.lines)[:8]:
        print(f"  {function.lines:4}  {function.name}")
    texts = docstrings()
    words = sum(len(text.split()) for text in texts)
    riddles = sum(len(_RIDDLES.findall(text)) for text in texts)
    print(f"\n{len(texts):,} docstrings: {words:,} words, {riddles / words:.1%} of them what, that, which or whose")
    if listed:
        for package in PACKAGES:
            for number, floor in enumerate(floors_of(graph, package)):
                for module in sorted(floor):
                    below = sorted(graph.successors(module))
                    print(f"{package} {number}: {module} <- {', '.join(below)}")
    found = problems(graph)
    print("\n" + ("\n".join(found) if found else "nothing is beyond its bound"))
    return int(bool(found))


def problems(graph: nx.DiGraph) -> list[str]:
    """Each module, folder, tower and circle that is beyond its bound, in a sentence."""
    return [*long_modules(), *full_folders(), *high_towers(graph), *circle_lines(graph), *clause_lines()]


def long_modules() -> list[str]:
    sizes = ((name, lines) for package in PACKAGES for name, lines in module_lines(package).items())
    return [f"{name} has {lines} lines" for name, lines in sizes if lines > MOST_LINES]


def full_folders() -> list[str]:
    sizes = ((name, count) for package in PACKAGES for name, count in folders(package).items())
    return [f"{name} holds {count} modules" for name, count in sizes if count > MOST_MODULES]


def high_towers(graph: nx.DiGraph) -> list[str]:
    heights = ((package, len(floors_of(graph, package))) for package in PACKAGES)
    return [f"{package} has {floors} floors" for package, floors in heights if floors > MOST_FLOORS]


def clause_lines() -> list[str]:
    return [f"a docstring begins with a clause: {text.splitlines()[0]}" for text in docstrings() if _CLAUSE.match(text)]


def circle_lines(graph: nx.DiGraph) -> list[str]:
    return [f"a circle: {', '.join(sorted(circle))}" for circle in circles(graph)]


@cache
def imports() -> nx.DiGraph:
    """All imports among the packages' modules, those for types alone included; an edge leads to what is imported."""
    found = grimp.build_graph("edgestill", cache_dir=None)
    graph = nx.DiGraph()
    graph.add_nodes_from(map(_short, found.modules))
    graph.add_edges_from((_short(name), _short(other)) for name in found.modules for other in _imported(found, name))
    return graph


def circles(graph: nx.DiGraph) -> list[set[str]]:
    """Sets of modules that import each other, however long the way round; a package's own file is a module too."""
    return [circle for circle in nx.strongly_connected_components(graph) if len(circle) > 1]


def floors_of(graph: nx.DiGraph, package: str) -> list[set[str]]:
    """The modules of a package by floor, the ground floor first."""
    own = graph.subgraph(name for name in graph if name.split(".")[0] == package)
    tower = nx.condensation(own).reverse()
    layers = nx.topological_generations(tower)
    return [set().union(*(tower.nodes[circle]["members"] for circle in layer)) for layer in layers]


@cache
def module_lines(package: str) -> dict[str, int]:
    return {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _files(package)}


def folders(package: str) -> dict[str, int]:
    """Modules in each folder, the packages' own files left out."""
    counts: dict[str, int] = {}
    for path in _files(package):
        if path.name != "__init__.py":
            name = path.parent.relative_to(ROOT).as_posix()
            counts[name] = counts.get(name, 0) + 1
    return counts


def functions() -> list[Function]:
    found = []
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node, clean=False)
                first = node.body[1] if said is not None and len(node.body) > 1 else node.body[0]
                found.append(Function(f"{name}.{node.name}", (node.end_lineno or 0) - first.lineno + 1))
    return found


@cache
def docstrings() -> tuple[str, ...]:
    return tuple(_docstrings())


def _docstrings() -> Iterator[str]:
    for _, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield text


def _imported(graph: grimp.ImportGraph, module: str) -> set[str]:
    return graph.find_modules_directly_imported_by(module)


def _short(module: str) -> str:
    return module.removeprefix("edgestill.")


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in _files(package):
            yield _name(path), ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


if __name__ == "__main__":
    raise SystemExit(main())
