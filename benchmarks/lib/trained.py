"""Published accuracies of trained networks, read as architectures of our spaces."""

import ast
import json
from pathlib import Path
from typing import NamedTuple

from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.space import Architecture, SearchSpace

_EDGES = ("edge01", "edge02", "edge03", "edge12", "edge13", "edge23")
_OPERATIONS = (1, 0, 3, 2, 4)  # the file's operation to ours


class Trained(NamedTuple):
    architecture: Architecture
    accuracy: float  # per cent
    published: dict[str, float]  # other scores of the file, by name


def read_cells(table: Path, dataset: str, space: SearchSpace) -> list[Trained]:
    rows = json.loads(table.read_text(encoding="utf-8"))[dataset]
    cells = []
    for key, row in rows.items():
        choices = dict(zip(_EDGES, (_OPERATIONS[i] for i in ast.literal_eval(key)), strict=True))
        published = {name: value["score"] for name, value in row.items() if isinstance(value, dict)}
        cells.append(Trained(space.make(choices), row["val_accuracy"], published))
    return sorted(cells, key=lambda cell: space.format(cell.architecture))


def read_s0(table: Path, space: SearchSpace) -> list[Trained]:
    lines = (line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip())
    return [Trained(space.parse("-".join(blocks)), float(accuracy), {}) for blocks, accuracy in lines]


def check_params(cells: list[Trained], costs: CostTable) -> None:
    """The file's cells must be read as the networks that they were."""
    for cell in cells:
        found, published = costs(cell.architecture).params, 1e6 * cell.published["params"]
        if abs(found - published) > 1:
            raise SystemExit(f"{cell.architecture} has {found} parameters here and {published:.0f} in the table")
