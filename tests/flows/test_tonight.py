"""A night goes on with a killed night's run, repeats nothing that is as it was, and says which it does."""

import datetime
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small

from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig
from edgestill.flows.prefect import tonight as module
from edgestill.flows.prefect.tonight import of_tonight, tonight
from edgestill.flows.registry.book import read_book
from edgestill.flows.registry.earlier import last_run
from edgestill.flows.registry.promotion import consider
from edgestill.flows.registry.retention import Retention, prune
from edgestill.flows.runner import new_run, run_chain, run_part
from edgestill.flows.stages.results import WarmStartResult
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The log of a flow run, which there is none of here."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "get_run_logger", logging.getLogger)


@pytest.fixture
def begun(tmp_path: Path) -> tuple[RunConfig, Path]:
    """A configuration, and a run of it that was killed before anything was done."""
    config = RunConfig(name="night")
    with RunDir.create(tmp_path, config.name, config.seed, config) as run:
        return config, run.root


def never(given: Any) -> str:
    raise AssertionError(f"was called with {given}")


def test_an_unfinished_run_of_the_configuration_goes_on_and_that_is_said(begun, caplog) -> None:
    config, root = begun
    assert tonight(config, root.parent, str, never) == str(root)
    assert caplog.messages == [f"going on with the unfinished run {root.name}"]


def test_an_unfinished_run_of_another_configuration_is_left_alone(begun) -> None:
    config, root = begun
    other = config.model_copy(update={"seed": 1})
    assert tonight(other, root.parent, never, lambda earlier: earlier) is None


def test_a_run_whose_data_are_others_by_now_is_given_up_for_a_new_one_and_may_be_removed(begun, caplog) -> None:
    config, root = begun

    def fail(given: Path) -> None:
        raise DataError("other examples")

    assert tonight(config, root.parent, fail, lambda earlier: "new") == "new"
    assert caplog.messages[-1] == f"{root.name} cannot go on (DataError); a new run is made"
    assert [one.kind for one in read_book(root.parent).decisions] == ["abandoned"]
    with RunDir.create(root.parent, "night", 0, config) as newer:
        assert last_run(root.parent, config) == newer.root
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
    assert prune(root.parent, Retention(days=1), later) == [root.name]


def test_any_other_error_ends_the_night_and_the_next_tries_again(begun) -> None:
    config, root = begun

    def full(given: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        tonight(config, root.parent, full, never)
    assert tonight(config, root.parent, str, never) == str(root)


def test_a_damaged_run_is_passed_over(begun) -> None:
    config, root = begun
    (root / "manifest.json").write_text("{")
    assert tonight(config, root.parent, never, lambda earlier: "new") == "new"


_NIGHT = """
import logging, sys
from pathlib import Path
import small
from edgestill.flows.prefect import tonight as module
from edgestill.flows.runner import new_run, run_chain
from edgestill.pipeline.runs.rundir import RunDir
module.get_run_logger = logging.getLogger
out, data = map(Path, sys.argv[1:])
config = module.of_tonight(small.config(data))
def anew(earlier):
    with new_run(config, out) as run:
        run_chain(run)
module.tonight(config, out, None, anew)
"""


def night(config: RunConfig, runs: Path) -> Path:
    """A night in this process; its run is then compared with the promoted one."""

    def go_on(root: Path) -> Path:
        with RunDir.open(root) as run:
            run_chain(run)
        return root

    def anew(earlier: RunDir | None) -> Path:
        with new_run(config, runs) as run:
            run_part(run, None, earlier=earlier)
        return run.root

    root: Path = tonight(config, runs, go_on, anew)
    consider(root)
    return root


def stamps(run: Path) -> dict[str, int]:
    return {str(p.relative_to(run)): p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and p.name[0] != "."}


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if it := found():
            return it
        time.sleep(0.002)
    raise AssertionError("it did not come")


@pytest.mark.engines
@pytest.mark.timeout(280)
def test_nights_finish_a_killed_one_repeat_nothing_and_begin_with_what_was_found(tmp_path: Path, caplog) -> None:
    runs, data = tmp_path / "runs", small.data(tmp_path / "x.npz")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    killed = subprocess.Popen([sys.executable, "-c", _NIGHT, str(runs), str(data)], env=environment)
    wait_for(lambda: killed.poll() is not None or list(runs.glob("*/tournament/rungs.jsonl")))
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    (first,) = runs.glob("*_small_*")
    done = json.loads((first / "manifest.json").read_text())["stages"]
    assert "teacher" in done
    assert "tournament" not in done
    before = stamps(first)

    config = of_tonight(small.config(data))
    assert night(config, runs) == first  # the killed night's run is finished
    assert f"going on with the unfinished run {first.name}" in caplog.messages
    after = stamps(first)
    assert {name: after[name] for name in before if name.split("/")[0] in done} == {
        name: before[name] for name in before if name.split("/")[0] in done
    }
    assert list(json.loads((first / "manifest.json").read_text())["stages"]) == list(stage_names(config))

    second = night(config, runs)  # begins with what the first one found, and takes over what has not changed
    assert second != first
    begun = RunDir.view(second).read("warm_start", WarmStartResult)
    assert begun.runs == (first.name,)
    assert begun.students == (RunDir.view(first).read("tournament", TournamentResult).winner.architecture,)
    found = RunDir.view(second).read("search", SearchResult)
    assert {candidate.architecture for candidate in found.candidates} >= set(begun.seeds)
    assert begun.seeds
    assert len(begun.trials) == 1
    taken = [RunDir.view(run).manifest.stages["teacher"] for run in (first, second)]
    assert taken[0] == taken[1]
    made = [first, second]
    while (another := night(config, runs)) != made[-1]:  # as long as there is something else to begin with
        made.append(another)
        assert len(made) < 7
    assert caplog.messages[-1] == f"nothing has changed since {another.name}: nothing is repeated"
    kept = stamps(another)
    assert night(config, runs) == another
    assert stamps(another) == kept

    small.data(data, seed=1)
    changed = night(config, runs)
    assert changed not in made
    assert RunDir.view(changed).manifest.stages["teacher"] != taken[0]
    shutil.rmtree(runs)
