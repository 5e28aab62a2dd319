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
    "export.device.answers",
    "export._profile",
)
_ANSWERS = "export.device.answers"

# The standard library has a `profile` too: whoever imports that from here on must not get this file.
_HEAD = """import os
import sys

if __name__ == "__main__" and sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]"""


def profile_script() -> str:
    """One file of the standard library, numpy and onnxruntime, that measures the models beside it.

    The package's own fresh processes run this very text, so a device's figures and ours come from the same code.
    """
    return _joined(_PARTS, _HEAD)


def run_script(file: str) -> str:
    """A bundle's run.py, of a file of this package and what tells whether INT8 can be believed, as one file."""
    return _joined((_ANSWERS, f"export.{file.removesuffix('.py')}"))


def _joined(names: tuple[str, ...], head: str = "") -> str:
    """One script of several modules, with the docstring of the last."""
    sources = {name: _source(name) for name in names}
    docstring = ast.get_docstring(ast.parse(sources[names[-1]]), clean=False)
    start = "\n\n".join(filter(None, [f'"""{docstring}"""', head]))
    return "\n\n\n".join([start, *(f"# {name}\n\n{_body(source, names)}" for name, source in sources.items())]) + "\n"


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")


def _body(source: str, parts: tuple[str, ...]) -> str:
    """Without its docstring and its imports of the other parts."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or (isinstance(node, ast.ImportFrom) and node.module in parts):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(lines).strip()
