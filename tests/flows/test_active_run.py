"""Active distillation in a run: killed in each phase it goes on to the same bytes; people answer by the command."""

import csv
import random
import shutil

import pytest
import torch

from edgestill.flows.cli.main import execute
from edgestill.flows.config import load_config
from edgestill.flows.labelling.desk import Desk
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.training import driven, taught
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.errors import RunDirError, WaitingError
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.runs.sealed import Journal
from edgestill.pipeline.teachers import build_teacher

SETTINGS = [
    "name=asking",
    "data.limit=60",
    "data.augment.pad=0",
    "teacher.architecture=resnet8",
    "search.space={name: resnet, blocks: [[1], [1], [1]], widths: [[4], [6], [8]]}",
    "distill.methods=[dho]",
    "distill.training.epochs=2",
    "baselines.enabled=false",
]


class Killed(BaseException):
    pass


def begin(folder, **driver):
    """A run as its distillation finds it, with a teacher of random weights."""
    given = ", ".join(f"{key}: {value}" for key, value in driver.items())
    config = load_config(None, "digits", [*SETTINGS, f"distill.driver={{name: active, rounds: 1, budget: 6, {given}}}"])
    run = RunDir.create(folder, config.name, config.seed, config)
    context = StageContext(run, config, lambda *tick: None, inputs="inputs")
    torch.manual_seed(0)
    run.write("teacher", WEIGHTS, weights_bytes(build_teacher(config.teacher, context.whole_splits().task)))
    return context


def distilled(context):
    winner = context.space.sample(random.Random(0))
    found = driven(context, "distill", winner, context.splits(), context.config.distill)
    return weights_bytes(found.student), found.measures


def dying(monkeypatch, kind, name, at):
    """Have the call number `at` of a method raise after its work; 0: before that of the first."""
    whole, calls = getattr(kind, name), []

    def call(self, *given, **named):
        calls.append(1)
        if at == 0:
            raise Killed
        whole(self, *given, **named)
        if len(calls) == at:
            raise Killed

    monkeypatch.setattr(kind, name, call)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        oracle: distilled(begin(folder, oracle=oracle, start=2, acquisition="rad")) for oracle in ("dataset", "teacher")
    }


@pytest.mark.parametrize("oracle", ["dataset", "teacher"])
@pytest.mark.parametrize(
    ("kind", "name", "at"),
    [(RunDir, "save", 1), (RunDir, "save", 3), (Journal, "append", 0), (Journal, "append", 1), (Journal, "append", 3)],
)
def test_a_run_killed_in_any_phase_ends_with_the_same_bytes(tmp_path, monkeypatch, undisturbed, oracle, kind, name, at):
    context = begin(tmp_path, oracle=oracle, start=2, acquisition="rad")
    with monkeypatch.context() as patch:
        dying(patch, kind, name, at)
        try:
            distilled(context)
        except Killed:
            pass
        else:
            assert (oracle, name, at) == ("dataset", "append", 3)  # the data's answers are not written down
    assert distilled(context) == undisturbed[oracle]


def test_later_trainings_learn_what_was_asked_and_ask_no_more(tmp_path, monkeypatch):
    context = begin(tmp_path, oracle="teacher", start=2)
    distilled(context)
    splits = context.splits()
    seen = []

    def distill(*given, **named):
        seen.append(given)
        return type("Told", (), {"cautions": ()})()

    monkeypatch.setattr("edgestill.flows.stages.training.distill", distill)
    taught(context, "prune", None, splits, context.config.distill)
    (_, teacher, learnt, _), asked = seen[0], 2 * 10 + 6
    assert len(learnt.train) == asked
    assert len(splits.train) == 20
    assert len(teacher.get_buffer("ids")) == asked


def test_answers_stay_when_the_distillation_is_done_anew_and_the_choice_does_not(tmp_path):
    context = begin(tmp_path, oracle="people", start=2)
    with pytest.raises(WaitingError):
        distilled(context)
    driver, whole = context.driver(), context.whole_splits()
    names = list(driver.questions(whole).split.ids)
    driver.keep(whole, dict.fromkeys(names, 3))
    context.run.discard("distill")  # as other settings of the distillation do
    assert context.driver().questions(whole) is None
    distilled(context)  # the same students choose the same examples, and nobody is asked again
    targets = context.driver().afterwards(whole).splits.train.targets
    assert int((targets != UNLABELLED).sum()) == 26


def test_a_run_without_questions_to_people_says_so(tmp_path):
    context = begin(tmp_path, oracle="dataset", start=2)
    with pytest.raises(RunDirError, match=r"asks no person for labels: its distill\.driver is 'active'"):
        Desk(context.run)
    context = begin(tmp_path, oracle="people", start=2)
    with pytest.raises(RunDirError, match="has no open question"):
        Desk(context.run)


@pytest.mark.engines
def test_people_are_asked_by_the_command_and_the_run_ends(tmp_path, edgestill, tiny_arguments):
    driver = "{name: active, oracle: people, start: 5, rounds: 1, budget: 4}"
    changes = {"distill__driver": driver, "distill__methods": "[dho]", "tune__enabled": "false"}
    arguments = tiny_arguments(**changes, baselines__enabled="false", export__formats="[fp32]", qat__mode="never")
    out = ("--out", str(tmp_path))
    asked = edgestill("run", *arguments, *out, "--quiet")
    assert asked.returncode == 3, asked.stderr
    assert "waiting: round 1 waits for the labels of 4 examples" in asked.stderr
    assert "edgestill label" in asked.stderr
    told = edgestill("label", "latest", *out)
    assert told.returncode == 0, told.stderr
    (root,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    table = root / "labels" / "round_1.csv"
    rows = list(csv.reader(table.open(encoding="utf-8")))
    assert len(rows) == 5
    answers = tmp_path / "answers.csv"
    answers.write_text("id,label\n" + "".join(f"{name},7\n" for name, _ in rows[1:]), encoding="utf-8")
    shutil.copy(answers, table)
    assert "as it was" in edgestill("label", "latest", *out).stdout
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(answers.read_text().replace(",7\n", ",seven\n"), encoding="utf-8")
    refused = edgestill("label", "latest", "--answers", str(wrong), *out)
    assert refused.returncode == 2
    assert refused.stderr.count("no class is called 'seven'") == 4
    part = tmp_path / "part.csv"
    part.write_text(f"label,id\n7,{rows[1][0]}\n", encoding="utf-8")
    assert "1 label read; 3 of round 1 to go" in edgestill("label", "latest", "--answers", str(part), *out).stdout
    read = edgestill("label", "latest", "--answers", str(answers), *out)
    assert "4 labels read; round 1 is complete" in read.stdout
    ended = edgestill("resume", "latest", *out, "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert execute(["label", "latest", *out]) == 2  # it has all its labels
