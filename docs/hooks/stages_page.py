"""The page of the stages, from the chain."""

import sys
from typing import Any

from edgestill.flows.chain import STAGES
from edgestill.flows.config.model import RunConfig

HEAD = """# Stages

The chain in its order. A stage's folder in the run has its name, and in it `result.json`, the result of this type. When
to use which: [what each stage does](../explanation/stages.md).

| stage | what it does | its keys | result | among the result's keys |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page: a line for each stage."""
    return HEAD + "\n".join(_line(stage) for stage in STAGES) + "\n"


def _line(stage: Any) -> str:
    kind = type(stage)
    does = (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0]
    name = f"`{stage.name}`" + ("" if stage.takes_part(RunConfig()) else ", if configured")
    settings = f"[`{stage.name}`](configuration.md#{stage.name})" if stage.name in RunConfig.model_fields else ""
    keys = ", ".join(f"`{key}`" for key in list(stage.result.model_fields)[:5])
    return f"| {name} | {does} | {settings} | `{stage.result.__name__}` | {keys} |"
