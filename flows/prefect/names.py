"""Names that the Prefect modules share."""

from collections.abc import Sequence

TAG = "edgestill"  # of every deployment; `edgestill ui` checks the forms of these
CATCH_UP = "catch-up"  # tag of a run that makes up for missed ones
RETENTION = "EDGESTILL_RETENTION"  # variable of the serving process, which the API of a server cannot set
_SCHEDULED = "auto-scheduled"  # Prefect's tag of a run of a schedule


def is_night(tags: Sequence[str]) -> bool:
    """True for a flow run of the schedule, and for one that makes up for missed ones."""
    return _SCHEDULED in tags or CATCH_UP in tags
