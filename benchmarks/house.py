"""The house in figures: floors, rooms, circles, long modules and functions, and how the docstrings read.

    python benchmarks/house.py [--imports]

A package's floors are the longest chain of its own modules in which each imports the next; modules that import each
other in a circle count as one. Imports for types alone count too. --imports lists each module with those that it
imports, by floor. Exit code 1: something is beyond its bound.
"""

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grimp

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
    texts = list(docstrings())
    words = sum(len(text.split()) for text in texts)
    riddles = sum(len(_RIDDLES.findall(text)) for text in texts)
    clauses = sum(bool(_CLAUSE.match(text)) for text in texts)
    print(f"\n{len(texts):,} docstrings: {words:,} words, {riddles / words:.1%} of them what, that, which or whose;")
    print(f"{clauses} begin with such a word")
    if listed:
        for package in PACKAGES:
            for number, floor in enumerate(floors_of(graph, package)):
                for module in sorted(floor):
                    below = sorted(name for name in graph.find_modules_directly_imported_by(module))
                    print(f"{package} {number}: {module} <- {', '.join(below)}")
    found = problems(graph)
    print("\n" + ("\n".join(found) if found else "nothing is beyond its bound"))
    return int(bool(found))


def problems(graph: grimp.ImportGraph) -> list[str]:
    """Each module, folder, tower and circle that is beyond its bound, in a sentence."""
    return [*long_modules(), *full_folders(), *high_towers(graph), *circle_lines(graph)]


def long_modules() -> list[str]:
    sizes = ((name, lines) for package in PACKAGES for name, lines in module_lines(package).items())
    return [f"{name} has {lines} lines" for name, lines in sizes if lines > MOST_LINES]


def full_folders() -> list[str]:
    sizes = ((name, count) for package in PACKAGES for name, count in folders(package).items())
    return [f"{name} holds {count} modules" for name, count in sizes if count > MOST_MODULES]


def high_towers(graph: grimp.ImportGraph) -> list[str]:
    heights = ((package, len(floors_of(graph, package))) for package in PACKAGES)
    return [f"{package} has {floors} floors" for package, floors in heights if floors > MOST_FLOORS]


def circle_lines(graph: grimp.ImportGraph) -> list[str]:
    return [f"a circle: {', '.join(sorted(circle))}" for circle in circles(graph)]


@cache
def imports() -> grimp.ImportGraph:
    """All imports among the packages' modules, those for types alone included."""
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def circles(graph: grimp.ImportGraph) -> list[frozenset[str]]:
    """Sets of modules that import each other, however long the way round; a package's own file is a module too."""
    return [circle for circle in _components(graph) if len(circle) > 1]


def floors_of(graph: grimp.ImportGraph, package: str) -> list[set[str]]:
    """The modules of a package by floor, the ground floor first."""
    inside = [frozenset(circle & _modules(graph, package)) for circle in _components(graph)]
    homes = {module: circle for circle in inside for module in circle}
    height: dict[frozenset[str], int] = {}
    for circle in filter(None, inside):  # a component comes behind those that it imports
        below = {homes[name] for module in circle for name in _imported(graph, module) if name in homes} - {circle}
        height[circle] = 1 + max((height[other] for other in below), default=0)
    floors: list[set[str]] = [set() for _ in range(max(height.values(), default=0))]
    for circle, floor in height.items():
        floors[floor - 1] |= circle
    return floors


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


def docstrings() -> Iterator[str]:
    for _, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield text


def _components(graph: grimp.ImportGraph) -> list[frozenset[str]]:
    """Tarjan's strongly connected components, each behind those that it imports."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []
    found: list[frozenset[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        open_.append(module)
        for other in sorted(_imported(graph, module)):
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in open_:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            at = open_.index(module)
            found.append(frozenset(open_[at:]))
            del open_[at:]

    sys.setrecursionlimit(10_000)
    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return found


def _imported(graph: grimp.ImportGraph, module: str) -> Iterable[str]:
    return graph.find_modules_directly_imported_by(module)


def _modules(graph: grimp.ImportGraph, package: str) -> set[str]:
    return {name for name in graph.modules if name.split(".")[0] == package}


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
