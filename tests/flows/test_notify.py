"""Notifications reach their targets, and say nothing of the addresses, whatever fails."""

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inbox import inbox

from edgestill.flows.prefect import nightly
from edgestill.flows.prefect.names import CATCH_UP
from edgestill.flows.prefect.notify import TARGETS, notify, require_targets, tell_of_a_crash
from edgestill.flows.registry.drift import Drift
from edgestill.pipeline.errors import FailedError, UserError

SECRET = "planted-word-of-a-password"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a server was told, whose address with its password is the one target."""
    with inbox() as (port, told):
        monkeypatch.setenv(TARGETS, f"json://me:{SECRET}@127.0.0.1:{port}/")
        yield told


def test_a_notification_reaches_its_target(told: list[dict[str, Any]]) -> None:
    assert notify("promoted", "run a: promoted; the first one") == []
    assert (told[0]["title"], told[0]["message"]) == (
        "edgestill: a student was promoted",
        "run a: promoted; the first one",
    )
    assert told[0]["type"] == "success"


def test_a_target_that_takes_nothing_costs_a_caution_without_its_address(
    told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capfd, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(TARGETS, f"json://me:{SECRET}@127.0.0.1:9/ {os.environ[TARGETS]} block:slack-webhook/none")
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setattr("edgestill.flows.prefect.notify.server_answers", lambda: False)
    said = notify("failed", "no disk")
    assert said == [
        f"target 1 of {TARGETS} did not take the notification",
        f"target 3 of {TARGETS} did not take the notification",
    ]
    assert len(told) == 1
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_an_address_that_cannot_be_read_is_refused_by_its_place(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(TARGETS, f"block:slack-webhook/team nothing://{SECRET}")
    with pytest.raises(UserError, match="number 2 is no address of apprise") as refused:
        require_targets()
    assert SECRET not in str(refused.value) + caplog.text
    monkeypatch.setenv(TARGETS, "")
    assert require_targets() == 0


def test_a_night_that_fails_is_told_and_fails(
    told: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "get_run_logger", logging.getLogger)

    def fail() -> None:
        raise FailedError("no student was found")

    with pytest.raises(FailedError):
        nightly.at_night(tmp_path, fail)
    assert [(one["title"], one["message"]) for one in told] == [("edgestill: the night failed", "no student was found")]


def test_a_night_whose_process_dies_is_told_by_the_process_that_serves(told: list[dict[str, Any]]) -> None:
    tell_of_a_crash(None, SimpleNamespace(tags=["edgestill"], name="asked"), None)
    assert told == []
    tell_of_a_crash(None, SimpleNamespace(tags=[CATCH_UP], name="night"), None)
    assert told[0]["message"].startswith("the process of night died")


def test_accuracy_that_falls_by_more_than_the_interval_is_drift() -> None:
    assert not Drift(before=0.9, n_before=500, after=0.88, n_after=500).is_drift
    assert Drift(before=0.9, n_before=500, after=0.8, n_after=500).is_drift
    assert not Drift(before=0.8, n_before=500, after=0.9, n_after=500).is_drift


def test_the_interval_is_that_of_agresti_and_caffo() -> None:
    """Their own example: 56 of 70 against 48 of 80, here at 99 %."""
    low, high = Drift(before=48 / 80, n_before=80, after=56 / 70, n_after=70).interval
    p, q = 57 / 72, 49 / 82
    half = 2.5758293 * math.sqrt(p * (1 - p) / 72 + q * (1 - q) / 82)
    assert (low, high) == pytest.approx((p - q - half, p - q + half), abs=1e-6)
    assert "at 99%" in Drift(before=0.6, n_before=80, after=0.8, n_after=70).sentence


def test_an_undrifted_student_raises_an_alarm_in_about_one_of_two_hundred_nights() -> None:
    rng, nights = np.random.default_rng(0), 4000
    before, after = rng.binomial(300, 0.9, nights), rng.binomial(300, 0.9, nights)
    alarms = [
        Drift(before=b / 300, n_before=300, after=a / 300, n_after=300).is_drift
        for b, a in zip(before, after, strict=True)
    ]
    assert np.mean(alarms) < 0.0075
