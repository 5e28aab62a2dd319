"""`edgestill resume RUN --set …`: what no finished stage has read may change, and the run says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgestill.flows.cli.main import execute
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.reconfigure import reconfigure
from edgestill.flows.show import show_run
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.results import Results
from edgestill.flows.stages.teacher import Teacher
from edgestill.pipeline.errors import CheckpointError, ConfigError, RunDirError
from edgestill.pipeline.runs.rundir import RunDir

SETTINGS = ["device.threads=1", "teacher.architecture=resnet8"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run of the digits whose data stage is finished."""
    config = load_config(settings=SETTINGS)
    with RunDir.create(tmp_path, "r", config.seed, config) as run:
        context = StageContext(run, config, lambda *tick: None)
        run.finish("data", Data().work(context, Results()), Data().inputs_digest(context, Results()), 0.0)
        yield run


def test_a_setting_that_no_finished_stage_has_read_is_changed_and_recorded(run: RunDir) -> None:
    started_with = run.manifest.config_digest
    changes = reconfigure(run, ["teacher.architecture=resnet14", "distill.training.epochs=3"])
    assert changes == {"teacher.architecture": "resnet8 -> resnet14", "distill.training.epochs": "60 -> 3"}
    config = run.config(RunConfig)
    assert (config.teacher.architecture, config.distill.training.epochs) == ("resnet14", 3)
    (change,) = run.manifest.changes
    assert (change.before, change.stages) == (started_with, ("data",))
    assert run.manifest.config_digest != started_with
    assert run.manifest.started_with == started_with
    assert "changed: teacher.architecture: resnet8 -> resnet14, after data" in show_run(RunDir.view(run.root))
    assert reconfigure(run, ["teacher.architecture=resnet14"]) == {}, "nothing is left to change"


@pytest.mark.parametrize("setting", ["seed=3", "data.validation_fraction=0.3"])
def test_what_a_finished_stage_has_read_is_refused_with_the_way_out(run: RunDir, setting: str) -> None:
    before = {path: path.read_bytes() for path in run.root.glob("*.*")}
    with pytest.raises(ConfigError) as caught:
        reconfigure(run, [setting])
    said = str(caught.value)
    assert said.startswith(
        f"the finished data stage depends on {setting.split('=')[0]}; start a new run: `edgestill run "
    )
    assert said.endswith(f"config.yaml --set {setting}`")
    assert {path: path.read_bytes() for path in run.root.glob("*.*")} == before


def test_a_stage_that_would_come_before_a_finished_one_is_refused(run: RunDir) -> None:
    run.finish("teacher", run.read("data", Data.result), "x", 0.0)
    with pytest.raises(RunDirError):  # its result is not a teacher's
        reconfigure(run, ["rank_check.students=6"])
    manifest = json.loads((run.root / "manifest.json").read_text())
    assert manifest["changes"] == []


def test_work_of_the_unfinished_stage_stays_unless_its_inputs_change(run: RunDir) -> None:
    run.save("teacher", ".checkpoint.pt", {"epoch": 1}, "inputs")
    reconfigure(run, ["distill.training.epochs=3"])
    assert run.saved("teacher", ".checkpoint.pt", "inputs") == {"epoch": 1}
    reconfigure(run, ["teacher.training.epochs=3"])
    assert run.saved("teacher", ".checkpoint.pt", "inputs") is None


def test_a_kill_between_the_two_writes_leaves_the_run_as_it_was(run: RunDir, monkeypatch) -> None:
    before = run.manifest
    with monkeypatch.context() as patch:
        patch.setattr("edgestill.pipeline.runs.rundir.write_config", _killed)
        with pytest.raises(KeyboardInterrupt):
            reconfigure(run, ["teacher.architecture=resnet14"])
    assert len(run.manifest.changes) == 1
    assert run.config(RunConfig).teacher.architecture == "resnet8"
    run.note_origin()
    assert run.manifest == before


def _killed(*given: object) -> str:
    raise KeyboardInterrupt


def test_a_wrong_setting_is_refused_as_in_a_new_run(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.architecture: unknown 'resnet9'; did you mean"):
        reconfigure(run, ["teacher.architecture=resnet9"])


def test_resume_changes_the_setting_and_goes_on(run: RunDir, monkeypatch, capsys) -> None:
    run.close()
    seen = []
    monkeypatch.setattr("edgestill.flows.cli.run.go_on", lambda found, *rest: seen.append(found))
    assert execute(["resume", str(run.root), "--set", "teacher.architecture=resnet14"]) == 0
    assert seen == [run.root]
    assert capsys.readouterr().err == "changed: teacher.architecture: resnet8 -> resnet14\n"


def test_a_run_and_its_resume_end_with_a_stage_that_there_is(run: RunDir, monkeypatch, capsys) -> None:
    run.close()
    ended = []
    monkeypatch.setattr(
        "edgestill.flows.cli.run.run_here", lambda held, quiet, is_new=False, last=None: ended.append(last)
    )
    out = str(run.root.parent)
    assert execute(["run", "--preset", "digits", "--out", out, "--until", "teacher", "--prefect"]) == 0
    assert execute(["resume", str(run.root), "--until", "search", "--no-prefect"]) == 0
    assert ended == ["teacher", "search"]
    before = len(list(run.root.parent.iterdir()))
    for verb in (["run", "--preset", "digits", "--out", out], ["resume", str(run.root)]):
        assert execute([*verb, "--until", "teachr"]) == 2
        assert "--until 'teachr' is no stage; did you mean 'teacher'" in capsys.readouterr().err
    assert len(list(run.root.parent.iterdir())) == before


def failing(error: BaseException):
    def fail(*given: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("stage", [Data, Teacher])
def test_a_run_that_fails_by_a_mistake_before_anything_is_trained_is_not_kept(
    stage: type, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(stage, "work", failing(CheckpointError("x.pt is of another architecture")))
    arguments = ["run", "--preset", "digits", "--out", str(tmp_path), "--quiet", "--no-prefect"]
    assert execute(arguments) == 2
    assert list(tmp_path.glob("*")) == []
    said = capsys.readouterr().err
    assert "the run is not kept, as nothing was trained yet; mend this and start it again\nerror: x.pt is" in said
    assert "resume" not in said


def test_a_run_that_fails_later_says_how_a_setting_is_changed(run: RunDir, monkeypatch, capsys) -> None:
    run.close()
    monkeypatch.setattr(Teacher, "work", failing(CheckpointError("x.pt is of another architecture")))
    assert execute(["resume", str(run.root), "--quiet", "--no-prefect"]) == 2
    said = capsys.readouterr().err
    assert f"`edgestill resume {run.root} --set KEY=VALUE`" in said
    assert f"`edgestill run {run.root}/config.yaml --set KEY=VALUE`" in said
