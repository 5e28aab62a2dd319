"""Keeps the current folder off the path of imports; `pipeline/child.py` does so for the processes that are started.

A file there that is called as a module (`onnx.py`, in a bundle that was downloaded) would run otherwise. `flows/cli.py`
calls it before it imports anything else, so this module stands on nothing that is not loaded already.
"""

import os
import sys

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is not loaded yet


def leave_out_the_current_folder() -> None:
    """Take it out of `sys.path`, unless PYTHONPATH names it in full or we lie in it."""
    try:
        here = os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed
        here = ""
    named = os.environ.get("PYTHONPATH", "")
    entries = named.split(os.pathsep) if named else []
    in_full = {entry for entry in entries if os.path.isabs(entry)} | {_HOME}  # noqa: PTH117
    relative = {os.path.abspath(entry) for entry in entries if here and entry not in in_full}  # noqa: PTH100
    if sys.path[:1] == [here] and here not in in_full:  # by `python -m`
        del sys.path[0]
    sys.path[:] = [entry for entry in sys.path if os.path.isabs(entry) and entry not in relative - in_full]  # noqa: PTH117
