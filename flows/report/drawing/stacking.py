"""Give each cell of a wide table its column's name, so that a phone can show rows as blocks; `report.css` does so."""

import re
from html import unescape

from markupsafe import escape

_NARROW = 3  # most columns that a phone shows side by side
_TABLE = re.compile(r"<table(?: class=\"([^\"]*)\")?>(.*?)</table>", re.DOTALL)
_CELL = re.compile(r"<t([hd])(|\s[^>]*)>(.*?)</t\1>", re.DOTALL)


def stackable(html: str) -> str:
    """Mark the wide tables of a page, and label their cells."""
    return _TABLE.sub(_marked, html)


def _marked(table: re.Match[str]) -> str:
    head, end, body = table[2].partition("</thead>")
    columns = [" ".join(unescape(re.sub(r"<[^>]+>", "", cell[3])).split()) for cell in _CELL.finditer(head)]
    if not end or len(columns) <= _NARROW:
        return table[0]
    rows = [_labelled(row, columns) for row in re.split(r"(?=<tr[ >])", body)]
    classes = " ".join(filter(None, (table[1], "stack")))
    return f'<table class="{classes}">{head}{end}{"".join(rows)}</table>'


def _labelled(row: str, columns: list[str]) -> str:
    names = iter(columns)
    return _CELL.sub(lambda cell: _with(cell, next(names, "")), row)


def _with(cell: re.Match[str], name: str) -> str:
    return f'<t{cell[1]}{cell[2]} data-label="{escape(name)}">{cell[3]}</t{cell[1]}>' if cell[1] == "d" else cell[0]
