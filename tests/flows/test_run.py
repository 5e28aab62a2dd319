"""A whole run by the command line: what it leaves behind, and what a kill does to it."""

import hashlib
import html
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import optuna
import pytest

from edgestill.export.bundle.schema import SCHEMA
from edgestill.flows.chain import stage_names
from edgestill.flows.cli.main import execute
from edgestill.flows.config import RunConfig
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.runs.rundir import RunDir

NAMES = stage_names(RunConfig())  # of a run as configured by default
pytestmark = pytest.mark.engines


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs a command in this process and gives its output and errors."""

    def run(*arguments: object) -> tuple[str, str]:
        assert execute([str(argument) for argument in arguments]) == 0
        said = capsys.readouterr()
        return said.out, said.err

    return run


def test_a_run_finishes_every_stage_and_says_where_things_are(finished_run: Path, call) -> None:
    shown, _ = call("show", finished_run)
    assert [line.split()[2] for line in shown.splitlines() if line.startswith("✓")] == list(NAMES)
    assert str(finished_run / "bundle") in shown
    assert finished_run.name in call("runs", "--out", finished_run.parent)[0]


def test_the_bundle_is_whole_and_its_digests_are_true(finished_run: Path) -> None:
    bundle = read_json(finished_run / "bundle" / "bundle.json")
    assert bundle["schema"] == SCHEMA
    files = read_json(finished_run / "bundle" / "manifest.json")["files"]
    assert {model["file"] for model in bundle["models"].values()} <= set(files)
    assert {"model.onnx", "labels.txt", "MODEL_CARD.md", "run.py", "sbom.cdx.json", "probes.safetensors"} <= set(files)
    assert {path.name for path in (finished_run / "bundle").iterdir()} == {*files, "manifest.json"}
    for name, entry in files.items():
        data = (finished_run / "bundle" / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
    assert bundle["models"][bundle["default"]]["runtime"] == "onnxruntime"
    assert set(bundle["metrics"]) == {"teacher", "student", "shipped"}
    assert bundle["cost"]["student"]["params"] <= 26_000
    for key in ("task", "latency", "budget", "seeds", "versions", "git_commit", "config_digest"):
        assert key in bundle


def test_the_card_quotes_figures_of_the_shipped_file_on_the_test_split(finished_run: Path) -> None:
    config = RunDir.view(finished_run).config(RunConfig)
    test = load_test(config.data, config.seed)
    bundle = read_json(finished_run / "bundle" / "bundle.json")
    session = onnxruntime.InferenceSession(finished_run / "bundle" / bundle["models"]["fp32"]["file"])
    answers = session.run(["logits"], {"images": test.images.numpy()})[0].argmax(1)
    recalls = [float(np.mean(answers[test.targets.numpy() == k] == k)) for k in range(10)]
    if bundle["default"] == "fp32":
        assert [entry["recall"] for entry in bundle["quality"]["classes"]] == pytest.approx(recalls)
    assert bundle["quality"]["robustness_n"] == len(test)
    assert len(bundle["quality"]["robustness"]) == 4


def test_the_shipped_accuracy_is_what_the_shipped_file_does_on_the_test_split(finished_run: Path) -> None:
    config = RunDir.view(finished_run).config(RunConfig)
    test = load_test(config.data, config.seed)
    bundle = read_json(finished_run / "bundle" / "bundle.json")
    default = bundle["models"][bundle["default"]]["file"]
    session = onnxruntime.InferenceSession(finished_run / "bundle" / default)
    answers = session.run(["logits"], {"images": test.images.numpy()})[0].argmax(1)
    accuracy = float(np.mean(answers == test.targets.numpy()))
    assert read_json(finished_run / "bundle" / "bundle.json")["metrics"]["shipped"]["test_accuracy"] == accuracy


def test_the_worth_of_the_teacher_is_said_by_show_page_and_card(finished_run: Path, call) -> None:
    tested = read_json(finished_run / "report" / "result.json")["worth"]
    gain = tested["gains"]["no_teacher"]
    taught, alone = (
        next(arm["accuracies"] for arm in tested["arms"] if arm["name"] == name) for name in ("recipe", "no_teacher")
    )
    assert gain["value"] == pytest.approx(taught[0] - alone[0])
    [said] = [line for line in call("show", finished_run)[0].splitlines() if line.startswith("The teacher")]
    assert said.endswith("(one seed).")
    page, card = ((finished_run / name).read_text() for name in ("report.html", "bundle/MODEL_CARD.md"))
    assert said in html.unescape(page).replace("\N{NO-BREAK SPACE}", " ")
    assert said.split("[")[0] in card


def test_the_search_lists_what_the_baselines_would_have_picked(finished_run: Path) -> None:
    search = read_json(finished_run / "search" / "result.json")
    assert set(search["picks"]) == {"params", "random"}
    feasible = [candidate["cost"]["params"] for candidate in search["candidates"]]
    assert search["picks"]["params"]["cost"]["params"] == max(feasible)
    assert all(params <= 26_000 for params in feasible)


def test_what_the_tournament_decides_is_what_ships(finished_run: Path) -> None:
    played = read_json(finished_run / "tournament" / "result.json")
    assert {rung["entrants"] for rung in played["rungs"]} == {len(played["entrants"])} == {2}
    found = accuracies(finished_run)
    assert found[played["winner"]["architecture"]] == max(found.values())
    assert read_json(finished_run / "distill" / "result.json")["architecture"] == played["winner"]["architecture"]
    shipped = read_json(finished_run / "bundle" / "bundle.json")["architecture"]
    assert shipped == f"resnet:{played['winner']['architecture']}"


def test_every_format_has_a_verdict_and_what_ships_is_in_the_bundle(finished_run: Path, call) -> None:
    profiled = read_json(finished_run / "profile" / "result.json")
    verdicts = {verdict["format"]: verdict for verdict in profiled["verdicts"]}
    assert set(verdicts) == {"fp32", "fp16", "int8"}
    assert all(verdict["reason"] for verdict in verdicts.values())
    bundle = read_json(finished_run / "bundle" / "bundle.json")
    assert set(bundle["models"]) == {name for name, verdict in verdicts.items() if verdict["shipped"]}
    assert bundle["default"] == profiled["default"]
    tested = read_json(finished_run / "report" / "result.json")
    assert set(tested["formats"]) == set(profiled["formats"])
    assert tested["shipped"] == tested["formats"][profiled["default"]]
    assert tested["teacher_file"]["accuracy"] == tested["teacher"]["accuracy"]
    said, _ = call("show", finished_run)
    for name in ("fp16", "int8"):
        word = "ships" if verdicts[name]["shipped"] else "rejected"
        assert f"{name} {word}: {verdicts[name]['reason']}" in said
    samples = read_json(finished_run / "profile" / "samples_ms.json")
    assert set(samples) == {"teacher", "fp32", "fp16", "int8"}
    assert len({len(times) for times in samples.values()}) == 1  # all took the same turns


def test_the_study_opens_where_optuna_dashboard_looks_for_it(finished_run: Path) -> None:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{finished_run / 'tune' / 'study.db'}")
    assert len(study.trials) == 3
    assert set(study.trials[0].params) == {
        "training.learning_rate",
        "training.weight_decay",
        "kd.temperature",
        "kd.distill_weight",
    }


def test_no_secret_of_the_environment_is_in_a_file_of_the_run(finished_run: Path, told_secrets, tmp_path: Path) -> None:
    assert told_secrets(finished_run) == []
    (tmp_path / "leak").write_text("a planted-secret")
    assert told_secrets(tmp_path) == [str(tmp_path / "leak")]


def test_resuming_a_finished_run_repeats_nothing(finished_run: Path, call) -> None:
    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"}

    before = stamps()
    _, said = call("resume", finished_run, "--quiet")
    assert said.count("was done") == len(NAMES)
    assert {k: v for k, v in stamps().items() if k in before and Path(k).is_file()} == {
        k: v for k, v in before.items() if Path(k).is_file()
    }


def accuracies(run: Path) -> dict[str, list[float]]:
    entrants = read_json(run / "tournament" / "result.json")["entrants"]
    return {entrant["candidate"]["architecture"]: entrant["accuracies"] for entrant in entrants}


KILL_POINTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("teacher", lambda run: (run / "teacher" / ".checkpoint.pt").exists()),
    ("search", lambda run: (run / "search" / "history.jsonl").exists()),
    ("tournament", lambda run: (run / "tournament" / "rungs.jsonl").exists()),
    ("tune", lambda run: (run / "tune" / ".trial_1.pt").exists()),
    ("distill", lambda run: (run / "distill" / ".checkpoint.pt").exists()),
    ("export", lambda run: (run / "export" / "student.onnx").exists()),
]


@pytest.mark.timeout(280)
def test_a_run_killed_in_every_stage_ends_with_the_same_bits(
    finished_run: Path, edgestill, tiny_arguments, command_environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["run", *tiny_arguments(baselines__enabled="false"), "--out", str(tmp_path), "--quiet"]
    for stage, reached in KILL_POINTS:
        process = subprocess.Popen([sys.executable, "-m", "edgestill", *arguments], env=command_environment)
        deadline = time.monotonic() + 90
        while not any(reached(run) for run in tmp_path.glob("*")):
            assert process.poll() is None, f"ended before it could be killed in {stage}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (run,) = tmp_path.glob("*")
        assert stage not in read_json(run / "manifest.json")["stages"], f"{stage} was over before the kill"
        arguments = ["resume", str(run), "--quiet"]
    last = edgestill(*arguments)
    assert last.returncode == 0, last.stderr
    assert last.stderr.count("was done") == NAMES.index("export")
    for name in ("teacher/weights.safetensors", "distill/weights.safetensors", "bundle/model.onnx"):
        assert (run / name).read_bytes() == (finished_run / name).read_bytes(), name
    tuned, undisturbed = (read_json(folder / "tune" / "result.json") for folder in (run, finished_run))
    assert tuned == undisturbed
    assert accuracies(run) == accuracies(finished_run)
    assert not list(run.rglob(".*.pt")), "checkpoints outlived their stages"


def test_a_run_that_another_process_holds_is_refused(finished_run: Path, edgestill) -> None:
    with RunDir.open(finished_run):
        refused = edgestill("resume", str(finished_run))
    assert refused.returncode == 2
    assert "held by another edgestill process" in refused.stderr


def test_an_altered_result_is_found_before_it_is_used(finished_run: Path, edgestill, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / finished_run.name
    shutil.copytree(finished_run, copy)
    weights = copy / "teacher" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused = edgestill("resume", str(copy))
    assert refused.returncode == 2
    assert "teacher/weights.safetensors was altered" in refused.stderr


def test_a_full_disk_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    code = (
        "import errno, os, sys\n"
        "import edgestill.pipeline.runs.checkpoint as checkpoint\n"
        "def full(fd): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'weights.safetensors')\n"
        "checkpoint.os.fsync = full\n"
        "from edgestill.flows.cli.main import main\n"
        f"sys.argv = ['edgestill', 'init', {str(tmp_path / 'c.yaml')!r}]\n"
        "main()\n"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "the disk is full" in failed.stderr
    assert not list(tmp_path.glob("c.yaml*"))


def test_optuna_dashboard_shows_the_study(finished_run: Path) -> None:
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    application = optuna_dashboard.wsgi(f"sqlite:///{finished_run / 'tune' / 'study.db'}")
    statuses: list[str] = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/api/studies",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }
    body = b"".join(application(environment, lambda status, headers, error=None: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["edgestill"]
