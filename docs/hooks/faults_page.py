"""The page of faults, from the declaration that the tests of every cell read."""

import importlib.util
from pathlib import Path
from types import ModuleType

DECLARED = Path(__file__).parents[2] / "tests" / "flows" / "faults.py"
HEAD = """# Faults

A test brings each fault about in each stage (`tests/flows/test_faults.py`) and looks for what this table says. The name
of an error: the run ends with that error, in one sentence, and nothing of the stage counts. *Goes on*: to the result of
an undisturbed run. *Does without*: the stage ends, and its result says which students failed and why. A killed night is
finished by the next one ([nightly](../howto/nightly.md)).

"""


def page() -> str:
    """Return the page: a row for each fault, a column for each stage."""
    faults = _declared()
    columns = ["fault", *(f"`{stage}`" for stage in faults.STAGES)]
    rows = [[fault.name, *(_cell(fault, stage) for stage in faults.STAGES)] for fault in faults.FAULTS]
    ways = [[fault.name, fault.injected, fault.way_out] for fault in faults.FAULTS]
    parts = [_table(columns, rows), "## How each is brought about, and the way out\n"]
    return HEAD + "\n".join([*parts, _table(["fault", "in the tests", "way out"], ways)])


def _declared() -> ModuleType:
    found = importlib.util.spec_from_file_location("faults", DECLARED)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _cell(fault: object, stage: str) -> str:
    stages, outcome = getattr(fault, "stages"), getattr(fault, "outcome_in")(stage)  # noqa: B009
    if stage not in stages:
        return "–"
    return f"`{outcome}`" if outcome.endswith("Error") else outcome


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
