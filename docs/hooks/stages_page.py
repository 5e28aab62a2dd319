"""The page of the stages, from the chain."""

import sys

from edgestill.flows.chain import STAGES
from edgestill.flows.config.model import RunConfig

HEAD = """# Stages

The chain in its order. A stage's folder in the run has its name, and in it `result.json`, the result of this type. When
to use which: [what each stage does](../explanation/stages.md).

| stage | what it does | result | of its result's keys |
|---|---|---|---|
"""


def page() -> str:
    """Return the page: a line for each stage."""
    return HEAD + "\n".join(_line(stage) for stage in STAGES) + "\n"


def _line(stage: object) -> str:
    kind = type(stage)
    does = (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0]
    name = f"`{stage.name}`" + ("" if stage.takes_part(RunConfig()) else ", if configured")
    keys = ", ".join(f"`{key}`" for key in list(stage.result.model_fields)[:5])
    return f"| {name} | {does} | `{stage.result.__name__}` | {keys} |"
