"""Jinja templates of the pages, and their common surroundings."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from edgestill.flows.report.drawing.canvas import COLOURS
from edgestill.flows.report.drawing.stacking import stackable


def render(template: str, parts: dict[str, Any], package: str = "edgestill.flows.report") -> str:
    """Render a template to one self-contained page, its wide tables marked for phones.

    Args:
        package: the template's folder; those of the report can be included from any.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in dict.fromkeys((package, "edgestill.flows.report"))]),
        autoescape=True,  # labels, notes and reasons hold text by users and other libraries
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return stackable(environment.get_template(template).render(colours=COLOURS, **parts))
