"""Texts of a bundle's scripts; profile_device.py joins `measure.py` and the modules it needs."""

import ast
from importlib import resources

_PARTS = (
    "edgestill.pipeline.timing.stopwatch",
    "edgestill.pipeline.timing.latency_statistics",
    "edgestill.export.device.facts",
    "edgestill.export.device.runtimes",
    "edgestill.export.device.worker",
    "edgestill.export.device.judge",
    "edgestill.export.device.measure",
    "edgestill.export.device.text",
    "edgestill.export.device.answers",
    "edgestill.export.bundle.scripts.measure",
)
_ANSWERS = "edgestill.export.device.answers"
_PICTURES = ("edgestill.pipeline.data.pixels", "edgestill.export.bundle.scripts.png")

PROFILE = "profile_device.py"  # not a name of the standard library or a dependency: Python looks beside it first

# Imports only modules that the interpreter has already: a file beside the script must not replace a library's.
_HEAD = """import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a label may have letters that the terminal has not"""


def standalone(source: str) -> str:
    """Return a script as it ships: it imports nothing from its own folder, and prints to any terminal."""
    docstring = ast.parse(source).body[0]
    lines = source.splitlines()
    return "\n".join([*lines[: docstring.end_lineno], "", *_HEAD.splitlines(), *lines[docstring.end_lineno :]]) + "\n"


def profile_script() -> str:
    """Return profile_device.py: one file to measure the models beside it, with numpy and onnxruntime alone.

    The package's own fresh processes run this very text, so a device's figures and ours come from the same code.
    """
    return _joined(_PARTS)


def run_script(file: str) -> str:
    """Return a bundle's run.py: a file of this package, joined with the check of INT8 answers and other parts."""
    parts = (_ANSWERS, *_PICTURES) if file == "run_images.py" else (_ANSWERS,)
    return _joined((*parts, f"{__package__}.{file.removesuffix('.py')}"))


def _joined(names: tuple[str, ...]) -> str:
    """Join modules into one script, with the docstring of the last."""
    sources = {name: _source(name) for name in names}
    docstring = ast.get_docstring(ast.parse(sources[names[-1]]), clean=False)
    parts = [f"# {name}\n\n{_body(source, names)}" for name, source in sources.items()]
    return standalone("\n\n\n".join([f'"""{docstring}"""', *parts]) + "\n")


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")


def _body(source: str, parts: tuple[str, ...]) -> str:
    """Return a module's text without its docstring and its imports of the other parts."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or (isinstance(node, ast.ImportFrom) and node.module in parts):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(lines).strip()
