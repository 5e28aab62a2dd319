"""A table of labels as people filled it in: columns id and label."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from edgestill.distill.drivers.active import Questions
from edgestill.pipeline.data.datasets.table import Format, Row, read_rows
from edgestill.pipeline.errors import DataError, nearest, told

NO_CLASS = "?"  # in the place of a label: the example fits no class
_COLUMNS = ("id", "label")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # openings by which a spreadsheet knows one, and its own mark of text


def inert(cell: str) -> str:
    """Mark a cell as text where a spreadsheet would compute it: texts and names of examples come from anybody."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def read_labels(path: Path, questions: Questions, labels: Sequence[str]) -> dict[str, int | None]:
    """Read a table of labels: the class's number by the example's name, or None for "fits no class".

    Examples with an empty label are left out.

    Raises:
        DataError: the file is no table, or has problems, a sentence each; no label of it counts then.
    """
    given = [
        (line, _spelt(name, questions.known), _spelt(label, (*labels, NO_CLASS))) for line, name, label in _given(path)
    ]
    problems = [*_faults(path, given, questions, labels), *_contradictions(path, given)]
    if problems:
        raise DataError(*told(problems))
    if not given:
        raise DataError(f"{path} has no label filled in; write the name of a class beside each id, or {NO_CLASS}")
    return {name: None if label == NO_CLASS else labels.index(label) for _, name, label in given}


def _spelt(cell: str, known: Container[str]) -> str:
    """Take off the mark that `inert` has set, unless the cell is a name with it."""
    return cell[1:] if cell not in known and cell.startswith("'") and inert(cell[1:]) == cell else cell


def _given(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, id and label of each row with a label."""
    if not path.is_file():
        raise DataError(f"no file at {path}")
    header, *rows = [*read_rows(path, Format("utf-8", None, None))] or [Row(1, ())]
    columns = [cell.strip() for cell in header.cells]
    if any(columns.count(name) != 1 for name in _COLUMNS):
        raise DataError(f"{path} needs a column id and a column label, and its first line is {', '.join(columns)!r}")
    for row in rows:
        if len(row.cells) != len(columns):
            raise DataError(f"{path}, line {row.line}: {len(row.cells)} cells for {len(columns)} columns")
        name, label = (row.cells[columns.index(column)].strip() for column in _COLUMNS)
        if label:
            yield row.line, name, label


def _faults(
    path: Path, given: Sequence[tuple[int, str, str]], questions: Questions, labels: Sequence[str]
) -> Iterator[str]:
    """Say what is wrong with each label, if anything is."""
    for line, name, label in given:
        if name not in questions.known:
            yield f"{path}, line {line}: there is no example {name!r} without a label in this run"
        elif label != NO_CLASS and label not in labels:
            hint = f"{nearest(label, labels)}; {NO_CLASS} stands for none of them"
            yield f"{path}, line {line}: no class is called {label!r}; {hint}"
        elif name in questions.closed and (was := _named(questions.answers[name], labels)) != label:
            yield (
                f"{path}, line {line}: {name!r} was labelled {was!r} in an earlier round and has been learnt from, so "
                "this cannot change"
            )


def _named(label: int | None, labels: Sequence[str]) -> str:
    return NO_CLASS if label is None else labels[label]


def _contradictions(path: Path, given: Sequence[tuple[int, str, str]]) -> Iterator[str]:
    first: dict[str, tuple[int, str]] = {}
    for line, name, label in given:
        before, other = first.setdefault(name, (line, label))
        if other != label:
            yield f"{path}, line {line}: {name!r} is {label!r} here and {other!r} in line {before}"
