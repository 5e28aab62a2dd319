"""Parts of other people's source files, run as they are written, without what else these files import."""

import ast
import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_USUAL: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "np": np, "copy": copy, "Optional": Optional}
_USUAL |= {"KLDivLoss": nn.KLDivLoss, "DistilLoss": nn.Module, "LightningModule": object}


class NotHere(Exception):
    """A file, or a name in it, is not in the folder that was given."""


def definitions(path: Path, *names: str, **given: Any) -> Mapping[str, Any]:
    """Run the named classes and functions at the top of a file, where `given` names are known too."""
    found = {node.name: node for node in _tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    _require(path, names, found)
    known = _USUAL | given
    _run(path, [found[name] for name in names], known)
    return known


def assignments(path: Path, function: str, *names: str) -> Callable[..., Any]:
    """Return what runs a function's first assignment to each name, one after the other, and gives the last one.

    Keyword arguments are the variables that these lines read.
    """
    bodies = {node.name: node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)}
    _require(path, (function,), bodies)
    lines: dict[str, ast.stmt] = {}
    for node in ast.walk(bodies[function]):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lines.setdefault(node.targets[0].id, node)
    _require(path, names, lines)
    code = compile(ast.Module([lines[name] for name in names], []), str(path), "exec")

    def run(**variables: Any) -> Any:
        known = _USUAL | variables
        exec(code, known)
        return known[names[-1]]

    return run


def _tree(path: Path) -> ast.Module:
    if not path.is_file():
        raise NotHere(str(path))
    source = path.read_text(encoding="utf-8")
    return ast.parse(source.replace('"cuda"', '"cpu"').replace(".cuda()", ".cpu()"))


def _require(path: Path, names: tuple[str, ...], found: Mapping[str, Any]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise NotHere(f"{', '.join(missing)} in {path}")


def _run(path: Path, nodes: list[Any], known: dict[str, Any]) -> None:
    exec(compile(ast.Module(nodes, []), str(path), "exec"), known)
