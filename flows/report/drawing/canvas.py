"""The base of every chart: colours and markers, a quiet pair of axes, and an SVG inline in the page.

A role looks the same in every chart, legend and table, on light and on dark. Charts are drawn with the light colours;
`draw` then turns each into its CSS variable, so one drawing follows the reader's colour scheme.
"""

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

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


_SETTINGS: Any = {  # matplotlib types the keys, and differently from version to version
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "edgestill",  # ids are drawn at random otherwise, and the same run would give another file
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; wider than the page's font, so nothing overlaps there
    "font.size": 11.5,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_TIP = "tip:"  # a link target, replaced by `_with_tips`


def draw(width: int, height: int, paint: "Callable[[Axes], None]", tips: Mapping[str, str] | None = None) -> Markup:
    """Draw `paint`'s chart as an SVG, `width` by `height` CSS pixels at its natural size.

    Args:
        tips: key -> text shown under the pointer over an artist with url `tip(key)`.
    """
    with contextlib.chdir(Path(__file__).parent):  # matplotlib reads a matplotlibrc in the current folder
        import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever other file of settings was read
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")  # an SVG point is 1 / 72 inch
        figure.patch.set_visible(False)
        axes = figure.subplots()
        _quieten(axes)
        paint(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA, dpi=144)
    return Markup(_inline(_with_tips(out.getvalue(), tips or {})))


def tip(key: str) -> str:
    """The url of an artist with a tip."""
    return _TIP + key


def standalone(svg: str, width: int, height: int) -> str:
    """A drawing as a picture by itself: of its natural size, in the light colours."""
    svg = str(svg)  # a Markup would escape what is put into it
    for role, (light, _) in COLOURS.items():
        svg = svg.replace(f"var(--{role})", light)
    style = f"background:{COLOURS['card'][0]};font-family:sans-serif"
    return svg.replace("<svg", f'<svg width="{width}" height="{height}" style="{style}"', 1)


def count_ticks(axis: "Axis") -> None:
    """Label an axis with 60k and 1.2M rather than 60000 and an exponent in the corner."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def percent_ticks(axis: "Axis") -> None:
    """Label shares in [0, 1] as percentages, with no more decimals than the ticks need."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol="%"))


def log_ticks(axis: "Axis") -> None:
    """Set ticks at 1, 2 and 5 of a decade, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def compact(value: float) -> str:
    """A number in short form: 1.2M, 60k, 0.05."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _quieten(axes: "Axes") -> None:
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["line"][0])
    axes.tick_params(colors=COLOURS["muted"][0], length=0, pad=5, labelsize=11)
    axes.xaxis.label.set_color(COLOURS["muted"][0])
    axes.yaxis.label.set_color(COLOURS["muted"][0])
    axes.grid(axis="y", color=COLOURS["line"][0], linewidth=0.8)
    axes.set_axisbelow(True)


def _inline(svg: str) -> str:
    """The bare <svg> element: sized by the page, in its font and colours, without ids shared between charts."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # `*{…}` would rule the page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for role, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{role})")
    return svg


def _with_tips(svg: str, tips: Mapping[str, str]) -> str:
    def titled(found: re.Match[str]) -> str:
        return f"<g><title>{escape(tips[found[1]])}</title>"

    return re.sub(rf'<a xlink:href="{_TIP}([^"]*)"[^>]*>', titled, svg).replace("</a>", "</g>")
