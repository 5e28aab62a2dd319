"""A runner of scheduled runs for one deployment or several: a missed night is made up once, and nights never overlap.

Prefect's own runner starts every run whose time has come: after four hours away, an hourly schedule's four. Here only
the last one of them starts. A run whose time comes while a scheduled one is at work is skipped. Runs that a person
starts wait for their turn.
"""

import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.runner import Runner
from prefect.states import Cancelled

from edgestill.flows.prefect.deployments import CATCH_UP
from edgestill.flows.prefect.owed import settle

_MINDED_S = 60  # between two looks at the schedules
_MISSED = "its time came while nobody served, and a later run makes up for it"
_OVERLAPS = "its time came while the run before it was at work"


class Due(Protocol):
    """A run to be started, as far as the choice needs it."""

    @property
    def id(self) -> UUID: ...
    @property
    def auto_scheduled(self) -> bool | None: ...
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def next_scheduled_start_time(self) -> datetime | None: ...


class Choice(NamedTuple):
    """Runs to start now, and scheduled runs to skip."""

    start: list[Due]
    skip: list[Due]


def choose(runs: Sequence[Due], now: datetime, at_work: bool, free: int) -> Choice:
    """Choose from runs that wait.

    Args:
        runs: those whose time has come or comes within seconds, but for those at work.
        at_work: True if a scheduled run is at work.
        free: number of runs that may start.
    """
    by_time = sorted(runs, key=_time)
    asked = [run for run in by_time if not is_night(run)]
    due = [run for run in by_time if is_night(run) and _time(run) <= now]
    coming = [run for run in by_time if is_night(run) and _time(run) > now]
    if at_work:
        return Choice(asked[:free], due)
    night = due[-1:] or coming[:1]
    return Choice(sorted([*night, *asked], key=_time)[: max(free, 0)], due[:-1])


def is_night(run: Due) -> bool:
    """True for a run of the schedule, and for one that makes up for those that were missed."""
    return bool(run.auto_scheduled) or CATCH_UP in run.tags


def _time(run: Due) -> datetime:
    return run.next_scheduled_start_time or datetime.min.replace(tzinfo=UTC)


class NightRunner(Runner):
    """Prefect's runner, with the choice above; it outlives the absence of the server and tells of paused schedules."""

    def __init__(self, name: str, limit: int, tell: Callable[[str], None]) -> None:
        super().__init__(name=name, limit=limit, pause_on_shutdown=False)
        self._most, self._tell_user = limit, tell
        self._nights: set[UUID] = set()  # scheduled runs that were started
        self._is_away, self._is_paused = False, False
        self._minded = datetime.min.replace(tzinfo=UTC)

    async def __aenter__(self) -> "NightRunner":
        await super().__aenter__()
        poller = self._scheduled_run_poller  # no hook of Prefect's chooses among runs
        fetch = poller._get_scheduled_flow_runs

        async def chosen() -> list[FlowRun]:
            return await self._chosen(fetch)

        setattr(poller, "_get_scheduled_flow_runs", chosen)  # noqa: B010 - a method of an instance
        return self

    def handle_sigterm(self, *given: object) -> None:
        """End as at Ctrl-C: Prefect's own handler ends the process with its work undone."""
        signal.raise_signal(signal.SIGINT)

    async def _chosen(self, fetch: Callable[[], Awaitable[list[FlowRun]]]) -> list[FlowRun]:
        try:
            found = await self._choose(await fetch())
            await self._mind()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            self._note_absence(True)
            return []
        self._note_absence(False)
        return found

    async def _choose(self, runs: list[FlowRun]) -> list[FlowRun]:
        working = set(self._scheduled_run_poller._submitting_flow_run_ids)
        waiting = [run for run in runs if run.id not in working]
        at_work = bool(self._nights & working)
        start, skip = choose(waiting, datetime.now(UTC), at_work, self._most - len(working))
        for run in skip:
            await self._client.set_flow_run_state(
                run.id, Cancelled(name="Skipped", message=_OVERLAPS if at_work else _MISSED), force=True
            )
        if skip:
            why = _OVERLAPS if at_work else _MISSED
            self._tell_user(f"{len(skip)} scheduled run{'s were' if len(skip) > 1 else ' was'} skipped: {why}")
        self._nights |= {run.id for run in start if is_night(run)}
        chosen = {run.id for run in start}
        return [run for run in waiting if run.id in chosen]

    async def _mind(self) -> None:
        """Tell of a schedule that somebody else paused, and set states right that the server has missed."""
        now = datetime.now(UTC)
        if (now - self._minded).total_seconds() < _MINDED_S:
            return
        self._minded = now
        await settle(self._client)
        for identity in self._deployment_registry.get_deployment_ids():
            deployment = await self._client.read_deployment(identity)
            if deployment.schedules:
                paused = deployment.paused or not all(schedule.active for schedule in deployment.schedules)
                self._note_pause(deployment.name, bool(paused))

    def _note_pause(self, name: str, is_paused: bool) -> None:
        if is_paused and not self._is_paused:
            self._tell_user(
                f"the schedule of {name} was paused, in the UI or by another program: no run starts by itself until it "
                "is resumed there"
            )
        elif self._is_paused and not is_paused:
            self._tell_user(f"the schedule of {name} was resumed")
        self._is_paused = is_paused

    def _note_absence(self, is_away: bool) -> None:
        if is_away and not self._is_away:
            self._tell_user("the Prefect server does not answer; what is at work goes on, and what waits begins later")
        elif self._is_away and not is_away:
            self._tell_user("the Prefect server is back")
            self._minded = datetime.min.replace(tzinfo=UTC)
        self._is_away = is_away
