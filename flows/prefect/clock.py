"""This machine's time zone, and the next times of a cron schedule in a zone.

The times are those of Prefect's own schedule. It makes one run a day of a daily schedule, also where the clock jumps:
an hour that is left out gives a run in the hour before it, and of an hour that comes twice the first counts.
"""

import asyncio
import os
import zoneinfo
from datetime import datetime
from pathlib import Path

from edgestill.pipeline.errors import UserError, nearest

_UTC, _ZONES = "UTC", "zoneinfo/"
_WRITTEN, _LINKED = Path("/etc/timezone"), Path("/etc/localtime")


def local_timezone() -> str:
    """Name of this machine's time zone in the zone database; UTC where the system does not say."""
    given = os.environ.get("TZ")
    names = (_linked(), _written()) if given is None else (given.lstrip(":"),)
    return next((name for name in names if _is_zone(name)), _UTC)


def require_timezone(name: str) -> str:
    """Return the name of a known time zone.

    Raises:
        UserError: there is no such zone.
    """
    if not _is_zone(name):
        known = zoneinfo.available_timezones()
        hint = nearest(name, known).partition(" known:")[0] if known else "no zone database is installed"
        raise UserError(f"--timezone {name!r} is no time zone; {hint or 'such as Europe/Berlin or UTC'}")
    return name


def next_runs(cron: str, timezone: str, count: int, start: datetime | None = None) -> list[datetime]:
    """Return the next times of a schedule, in its time zone.

    Args:
        start: time to begin at; None: now.

    Raises:
        UserError: it is no cron string.
    """
    from prefect.server.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
        found = asyncio.run(schedule.get_dates(count, start))
    except (ValidationError, ValueError) as error:
        raise UserError(f"--cron {cron!r} is no cron string; five fields are needed, such as '0 2 * * *'") from error
    return [when.astimezone(zoneinfo.ZoneInfo(timezone)) for when in found]


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _written() -> str:
    try:
        return _WRITTEN.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _linked() -> str:
    try:
        return str(_LINKED.resolve()).partition(_ZONES)[2]
    except OSError:
        return ""
