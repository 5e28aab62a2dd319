"""The report's colours and markers: a role looks the same in every chart, legend and table, on light and on dark.

Charts are drawn with the light colours; `canvas.py` then turns each into its CSS variable, so one drawing follows the
reader's colour scheme.
"""

from collections.abc import Sequence
from typing import NamedTuple

COLOURS: dict[str, tuple[str, str]] = {  # role -> (on light, on dark); the light ones are told apart by value
    "ink": ("#1b2330", "#e7eaf0"),
    "muted": ("#5b6576", "#9ca7b8"),
    "line": ("#e0e5ec", "#303947"),
    "page": ("#f5f6f8", "#11151b"),
    "card": ("#ffffff", "#1a2029"),
    "teacher": ("#2f62b5", "#7fa8f0"),
    "student": ("#d4561a", "#f58b57"),
    "point": ("#8c97a8", "#77839a"),
    "bad": ("#a8323e", "#f0848e"),
    "baseline-1": ("#0b8068", "#45c4a6"),
    "baseline-2": ("#8a4fb0", "#c493e6"),
    "baseline-3": ("#a87b00", "#e0b43a"),
    "baseline-4": ("#bf3f7c", "#ee86b6"),
    "baseline-5": ("#2189a6", "#62c3de"),
    "baseline-6": ("#6a7a1f", "#b3c45c"),
    "baseline-7": ("#7d5a45", "#c9a48d"),
}
_MARKERS = (("^", "▲"), ("s", "■"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"), ("p", "⬟"))
_ROLES = tuple(role for role in COLOURS if role.startswith("baseline"))


class Look(NamedTuple):
    """How a role is drawn (colour and matplotlib's marker) and shown in a legend (the CSS colour and a glyph)."""

    role: str
    marker: str
    glyph: str

    @property
    def colour(self) -> str:
        return COLOURS[self.role][0]


WINNER = Look("student", "*", "★")


def baseline_looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each baseline by its place, the same in the chart and the table."""
    return {
        name: Look(_ROLES[place % len(_ROLES)], *_MARKERS[place % len(_MARKERS)]) for place, name in enumerate(names)
    }
