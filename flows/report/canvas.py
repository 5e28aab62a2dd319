"""The base of every chart: a quiet pair of axes, and an SVG inline in the page, following its colours."""

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from edgestill.flows.report.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

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
