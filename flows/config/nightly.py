"""Settings of runs that are made night after night."""

from pydantic import Field

from edgestill.pipeline.frozen import Frozen


class NightlyConfig(Frozen):
    """Settings of nights."""

    warm_start: bool | None = Field(
        None,
        description="begin search, tuning and tournament with what earlier runs of the registry found; null does "
        "so in nights alone",
    )
