"""The texts of a bundle's scripts; that of profile_device.py joins `export/_profile.py` and what it stands on."""

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

PROFILE = "profile_device.py"  # no name that the standard library or a dependency has: Python looks beside it first

# Of modules that the interpreter has already: a file beside the script must not stand for a library's.
_HEAD = """import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a label may have letters that the terminal has not"""


def standalone(source: str) -> str:
    """A script of ours as it ships: it imports nothing from its own folder, and prints to any terminal."""
    docstring = ast.parse(source).body[0]
    lines = source.splitlines()
    return "\n".join([*lines[: docstring.end_lineno], "", *_HEAD.splitlines(), *lines[docstring.end_lineno :]]) + "\n"


def profile_script() -> str:
    """One file of the standard library, numpy and onnxruntime, that measures the models beside it.

    The package's own fresh processes run this very text, so a device's figures and ours come from the same code.
    """
    return _joined(_PARTS)


def run_script(file: str) -> str:
    """A bundle's run.py, of a file of this package and what tells whether INT8 can be believed, as one file."""
    return _joined((_ANSWERS, f"export.{file.removesuffix('.py')}"))


def _joined(names: tuple[str, ...]) -> str:
    """One script of several modules, with the docstring of the last."""
    sources = {name: _source(name) for name in names}
    docstring = ast.get_docstring(ast.parse(sources[names[-1]]), clean=False)
    parts = [f"# {name}\n\n{_body(source, names)}" for name, source in sources.items()]
    return standalone("\n\n\n".join([f'"""{docstring}"""', *parts]) + "\n")


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
