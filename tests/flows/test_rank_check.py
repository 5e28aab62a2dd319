"""`edgestill rank-check`: a run of its own that prints how each score ranks briefly trained students."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scipy.stats

from edgestill.flows.stages.results import RankCheckResult
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.search.scorers import SCORERS

pytestmark = pytest.mark.engines

SMALL = {
    "search__space__blocks": "[[1,2],[1,2],[1]]",
    "search__budget__max_params": "null",
    "teacher__training__epochs": "1",
}


@pytest.fixture(scope="module")
def checked(edgestill, tiny_arguments, tmp_path_factory: pytest.TempPathFactory):
    """The folder of a rank check that went through undisturbed, and what the command printed."""
    out = tmp_path_factory.mktemp("ranks")
    arguments = [*tiny_arguments(**SMALL), "--students", "5", "--epochs", "1"]
    done = edgestill("rank-check", *arguments, "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stderr
    return next(out.glob("*/manifest.json")).parent, done.stdout


def result_of(run: Path) -> RankCheckResult:
    return RunDir.view(run).read("rank_check", RankCheckResult)


def test_the_table_has_every_scorer_and_a_verdict(checked) -> None:
    run, printed = checked
    for name in SCORERS:
        assert name in printed
    result = result_of(run)
    assert result.configured == "ensemble"
    assert {row.scorer for row in result.rows} == set(SCORERS)
    assert "ensemble (configured)" in printed
    assert "5 students" in printed
    assert "against params" in printed
    assert "1 epoch each on 1,009 examples" in printed


def test_its_taus_are_those_of_its_students(checked) -> None:
    result = result_of(checked[0])
    assert len(result.students) == 5
    for row in result.rows:
        known = [student for student in result.students if row.scorer in student.scores]
        if row.tau is not None:
            scores = [student.scores[row.scorer] for student in known]
            expected = scipy.stats.kendalltau(scores, [student.accuracy for student in known]).statistic
            assert row.tau == pytest.approx(expected)
            assert row.interval is not None
            assert row.interval[0] <= row.tau <= row.interval[1]
    params = [student.scores["params"] for student in result.students]
    assert params == [student.cost.params for student in result.students] == sorted(params)


def test_show_and_runs_know_a_rank_check(checked, here) -> None:
    run, printed = checked
    shown = here("show", str(run))
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[2] for line in shown.stdout.splitlines() if line.startswith("✓")] == [
        "data",
        "teacher",
        "rank_check",
    ]
    assert printed.strip().splitlines()[-1] in shown.stdout
    assert "3/3" in here("runs", "--out", str(run.parent)).stdout


@pytest.mark.timeout(280)
def test_a_killed_check_goes_on_and_ends_as_an_undisturbed_one(
    checked, edgestill, tiny_arguments, command_environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*tiny_arguments(**SMALL), "--students", "5", "--epochs", "1", "--out", str(tmp_path), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "edgestill", "rank-check", *arguments], env=command_environment)
    deadline = time.monotonic() + 90
    while not any("training" in path.read_text() for path in tmp_path.glob("*/rank_check/students.jsonl")):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = tmp_path.glob("*")
    journal = run / "rank_check" / "students.jsonl"
    before = journal.read_text().splitlines()
    last = edgestill("resume", str(run), "--quiet")
    assert last.returncode == 0, last.stderr
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len({(entry["what"], entry["architecture"]) for entry in entries}) == len(entries) == 10
    assert [json.loads(line) for line in before if line.endswith("}")] == entries[: len(before)]
    found, expected = result_of(run), result_of(checked[0])
    assert found.rows == expected.rows
    assert [s.accuracy for s in found.students] == [s.accuracy for s in expected.students]
    assert not list(run.rglob(".*.pt"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("rank_check.students=3", "rank_check.students: 3 students are too few to rank; give 4 or more"),
        ("rank_check.only=true", "rank_check: only a rank check is asked for, and of no students"),
        ("search.tournament.reduction=1", "search.tournament.reduction: input should be greater"),
    ],
)
def test_a_mistake_in_its_configuration_is_one_sentence(here, setting: str, expected: str) -> None:
    refused = here("run", "--preset", "digits", "--set", setting)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: --set {expected}")


def test_a_rank_check_of_nothing_is_refused(here) -> None:
    refused = here("rank-check")
    assert refused.returncode == 2
    assert "nothing to check" in refused.stderr
