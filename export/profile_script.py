"""The text of a bundle's profile.py: `export/_profile.py` and the files that it stands on, joined into one."""

import ast
from importlib import resources

_PARTS = (
    "pipeline.stopwatch",
    "pipeline.latency_statistics",
    "export.device.facts",
    "export.device.worker",
    "export.device.judge",
    "export.device.measure",
    "export.device.text",
    "export._profile",
)

# The standard library has a `profile` too: whoever imports that from here on must not get this file.
_HEAD = """import os
import sys

if __name__ == "__main__" and sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]"""


def profile_script() -> str:
    """One file of the standard library, numpy and onnxruntime, that measures the models beside it.

    The package's own fresh processes run this very text, so a device's figures and ours come from the same code.
    """
    sources = {name: _source(name) for name in _PARTS}
    docstring = ast.get_docstring(ast.parse(sources["export._profile"]), clean=False)
    parts = [f"# {name}\n\n{_body(source)}" for name, source in sources.items()]
    return "\n\n\n".join([f'"""{docstring}"""\n\n{_HEAD}', *parts]) + "\n"


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")


def _body(source: str) -> str:
    """Without its docstring and its imports of the other parts."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or (isinstance(node, ast.ImportFrom) and node.module in _PARTS):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(lines).strip()
