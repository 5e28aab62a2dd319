"""The benchmarks import their own modules by their place, and each stands in their README."""

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TARGETS = {"gpu": "make gpu", "convolutions": "make scan", "house": "make house"}  # benchmarks run by make
SHARED = {path.stem for path in (BENCHMARKS / "lib").glob("*.py")}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.name)
def test_a_module_of_lib_is_imported_from_lib(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert not SHARED & set(named)
    for name in named:
        if name.startswith("lib."):
            assert name.removeprefix("lib.") in SHARED


def test_each_benchmark_stands_in_the_readme() -> None:
    listed = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    run = [
        path.relative_to(BENCHMARKS)
        for path in [*BENCHMARKS.glob("*.py"), *(BENCHMARKS / "peers").glob("*.py")]
        if "ArgumentParser" in path.read_text(encoding="utf-8")
    ]
    assert len(run) > 40
    assert [str(path) for path in run if f"`{TARGETS.get(path.stem, path.as_posix())}" not in listed] == []
