"""Keep the current folder off the import path; `pipeline/child.py` does so for child processes.

Otherwise a file there with a module's name (`onnx.py` in a downloaded bundle) would run. `main.py` calls this
before any other import, so this module imports only modules loaded already.
"""

import os
import sys

_HOME = os.path.abspath(os.path.join(__file__, "..", "..", "..", ".."))  # noqa: PTH100, PTH118 - pathlib is not loaded yet


def leave_out_the_current_folder() -> None:
    """Take the current folder out of `sys.path`, unless PYTHONPATH names it in full or our code lies in it."""
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
