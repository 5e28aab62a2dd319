"""The benchmarks' own modules are imported by their place, those imported inside functions too."""

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
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
