"""Scheduled runs by the clock: one a night, one for those that were missed, none beside one at work."""

import asyncio
import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest

from edgestill.flows.prefect import clock
from edgestill.flows.prefect.deployments import CATCH_UP
from edgestill.flows.prefect.nights import NightRunner, choose
from edgestill.pipeline.errors import UserError

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Waiting(NamedTuple):
    """A run that waits, as Prefect gives it."""

    id: UUID
    auto_scheduled: bool
    next_scheduled_start_time: datetime.datetime
    tags: tuple[str, ...] = ()


def waiting(minutes: float, scheduled: bool = True, *tags: str) -> Waiting:
    return Waiting(uuid4(), scheduled, NOW + datetime.timedelta(minutes=minutes), tags)


def test_of_the_runs_missed_in_four_minutes_away_only_the_last_starts() -> None:
    missed = [waiting(-minutes) for minutes in (4, 3, 2, 1)]
    start, skip = choose([*missed, waiting(0.1)], NOW, at_work=False, free=1)
    assert start == [missed[-1]]
    assert skip == missed[:-1]


def test_a_run_whose_time_comes_while_a_scheduled_one_is_at_work_is_skipped() -> None:
    due, coming = waiting(-1), waiting(0.1)
    assert choose([due, coming], NOW, at_work=True, free=0) == ([], [due])
    assert choose([due, coming], NOW, at_work=True, free=3) == ([], [due])


def test_a_run_that_makes_up_for_others_counts_as_one_of_them() -> None:
    catch_up, due = waiting(-2, False, CATCH_UP), waiting(-1)
    assert choose([catch_up, due], NOW, at_work=False, free=2) == ([due], [catch_up])


def test_runs_that_a_person_starts_wait_for_their_turn_and_are_never_skipped() -> None:
    asked = [waiting(-3, False), waiting(-2, False)]
    assert choose(asked, NOW, at_work=True, free=0) == ([], [])
    assert choose(asked, NOW, at_work=True, free=1) == (asked[:1], [])
    assert choose([*asked, waiting(-1)], NOW, at_work=False, free=3).start[:2] == asked


def test_no_more_start_than_there_is_room_for() -> None:
    assert choose([waiting(-1, False), waiting(-1)], NOW, at_work=False, free=0).start == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["0 2 * * *", "30 1 * * *"])
def test_a_nightly_schedule_makes_one_run_a_night_across_both_changes_of_the_clock(cron: str, zone: str) -> None:
    found: set[datetime.datetime] = set()
    for day in range(0, 366, 13):  # the server asks again and again, from wherever it is
        start = datetime.datetime(2026, 1, 1, 5, tzinfo=datetime.UTC) + datetime.timedelta(days=day)
        found |= set(clock.next_runs(cron, zone, 15, start))
    nights = sorted(when.astimezone(ZoneInfo(zone)).date() for when in found)
    assert nights == [nights[0] + datetime.timedelta(days=day) for day in range(len(nights))]
    assert len(nights) > 360


def test_the_next_runs_are_told_in_the_schedules_zone() -> None:
    start = datetime.datetime(2026, 7, 1, 6, tzinfo=datetime.UTC)
    (first,) = clock.next_runs("0 2 * * *", "Europe/Berlin", 1, start)
    assert f"{first:%Y-%m-%d %H:%M %Z}" == "2026-07-02 02:00 CEST"


def test_the_machines_own_zone_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert clock.local_timezone() == "Asia/Tokyo"
    monkeypatch.delenv("TZ")
    (tmp_path / "zoneinfo" / "Europe").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Europe" / "Berlin").write_bytes(b"")
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / "Europe" / "Berlin")
    monkeypatch.setattr(clock, "_LINKED", tmp_path / "localtime")
    assert clock.local_timezone() == "Europe/Berlin"
    monkeypatch.setattr(clock, "_LINKED", tmp_path / "none")
    monkeypatch.setattr(clock, "_WRITTEN", tmp_path / "none")
    assert clock.local_timezone() == "UTC"


def test_a_zone_that_is_none_is_refused_with_those_like_it() -> None:
    with pytest.raises(UserError, match=r"'Europe/Berln' is no time zone; did you mean 'Europe/Berlin'"):
        clock.require_timezone("Europe/Berln")


def test_a_cron_string_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="'nightly' is no cron string"):
        clock.next_runs("nightly", "UTC", 1)


class Api:
    """The part of Prefect's client that the runner uses."""

    api_url = "http://127.0.0.1:4200/api"

    def __init__(self) -> None:
        self.is_paused = False
        self.skipped: list[tuple[UUID, str]] = []

    async def read_deployment(self, identity: int) -> Any:
        return SimpleNamespace(name="night", paused=self.is_paused, schedules=[SimpleNamespace(active=True)])

    async def set_flow_run_state(self, identity: UUID, state: Any, force: bool) -> None:
        self.skipped.append((identity, state.name))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def runner(told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NightRunner:
    """A runner of one run at a time, as it is once it has begun."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    made: Any = NightRunner("night", 1, told.append)
    made._client = Api()
    made._scheduled_run_poller = SimpleNamespace(_submitting_flow_run_ids=set())
    made._deployment_registry = SimpleNamespace(get_deployment_ids=lambda: [1])
    return made


def chosen(runner: Any, *runs: Waiting) -> list[Waiting]:
    async def fetch() -> list[Waiting]:
        return list(runs)

    return list(asyncio.run(runner._chosen(fetch)))


def test_the_runner_skips_what_was_missed_and_says_so(runner: Any, told: list[str]) -> None:
    long_ago, before = waiting(-1e6), waiting(-1e5)
    assert chosen(runner, long_ago, before) == [before]
    assert runner._client.skipped == [(long_ago.id, "Skipped")]
    assert told == ["1 scheduled run was skipped: its time came while nobody served, and a later run makes up for it"]
    runner._scheduled_run_poller._submitting_flow_run_ids = {before.id}
    assert chosen(runner, before, overlapping := waiting(-1e4)) == []
    assert runner._client.skipped[1:] == [(overlapping.id, "Skipped")]


def test_a_server_that_is_away_ends_nothing_and_is_told_once(runner: Any, told: list[str]) -> None:
    async def away() -> list[Waiting]:
        raise httpx.ConnectError("refused")

    assert [asyncio.run(runner._chosen(away)) for _ in range(5)] == [[]] * 5
    assert len(told) == 1
    assert told[0].startswith("the Prefect server does not answer")
    assert chosen(runner) == []
    assert told[1:] == ["the Prefect server is back"]


def test_a_schedule_that_somebody_pauses_is_told_once_and_its_end_too(runner: Any, told: list[str]) -> None:
    for is_paused in (False, True, True, False):
        runner._client.is_paused, runner._minded = is_paused, NOW
        chosen(runner)
    assert [line.partition(":")[0] for line in told] == [
        "the schedule of night was paused, in the UI or by another program",
        "the schedule of night was resumed",
    ]
