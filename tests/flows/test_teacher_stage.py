"""The teacher's stage tells a teacher that is useless or misread before anything is trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgestill.flows.config import load_config
from edgestill.flows.progress import Silent
from edgestill.flows.runner import Runner, new_run
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.results import DataResult, Results
from edgestill.flows.stages.teacher import Teacher
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers.result import TeacherResult

SMALL = (
    "device.threads=1",
    "teacher.architecture=resnet8",
    "search.space.widths=[[6],[8],[12]]",
    "search.space.blocks=[[1],[1],[1]]",
    "search.budget.max_params=26000",
    "search.workers=1",
)


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def until_teacher(out: Path, *settings: str) -> tuple[RunDir, Results, list[str]]:
    config, heard = load_config(preset="digits", settings=[*SMALL, *settings]), Heard()
    with new_run(config, out) as run:
        runner, results = Runner(run, config, heard, lambda name, work: work()), Results()
        for stage in (Data(), Teacher()):
            result = runner(stage, results)
            results.add(stage.name, result, stage.sentence(result))
    return run, results, heard.lines


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Results, list[str]]:
    return until_teacher(tmp_path_factory.mktemp("runs"), "teacher.training.epochs=4")


@pytest.fixture(scope="module")
def rolled(taught: tuple[RunDir, Results, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = load_file(taught[0].root / "teacher" / "weights.safetensors")
    weights |= {name: torch.roll(weights[name], 1, 0) for name in ("linear.weight", "linear.bias")}
    path = tmp_path_factory.mktemp("weights") / "rolled.pt"
    torch.save(weights, path)
    return path


def test_accuracy_calibration_and_speed_are_said_beside_the_majority_class(taught) -> None:
    run, results, heard = taught
    found, data = results.of(TeacherResult), results.of(DataResult)
    assert found.confusion is not None
    assert found.confusion.counts.tolist() == list(data.look.counts["validation"])
    assert data.majority("validation") == found.confusion.majority
    assert sum(data.look.counts["train"]) == data.sizes["train"]
    said = results.sentences["teacher"]
    for words in (
        " on validation [",
        f"majority class {found.confusion.majority:.2%}",
        "calibration error 0.",
        " ms an",
    ):
        assert words in said
    assert not run.cautions
    assert not heard


def test_rolled_classes_are_refused_before_anything_is_trained_and_the_order_given_mends_them(
    taught, rolled: Path, tmp_path: Path
) -> None:
    weights = f"teacher.weights={rolled}"
    with pytest.raises(CheckpointError, match=r"class 0 is the data's '9'.*set teacher\.order to \[9, 0, 1, 2"):
        until_teacher(tmp_path, weights)
    _, results, _ = until_teacher(tmp_path, weights, "teacher.order=[9,0,1,2,3,4,5,6,7,8]")
    assert results.of(TeacherResult).validation == taught[1].of(TeacherResult).validation


def test_an_order_of_classes_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="order is for given weights"):
        until_teacher(tmp_path, "teacher.order=[1,0]")


def test_an_expert_may_go_on_with_a_caution_or_without(rolled: Path, tmp_path: Path) -> None:
    run, _, heard = until_teacher(tmp_path, f"teacher.weights={rolled}", "teacher.check=caution")
    assert any("its classes stand in another order" in caution for caution in run.cautions)
    assert heard == [f"caution: {caution}" for caution in run.cautions]
    run, _, _ = until_teacher(tmp_path, f"teacher.weights={rolled}", "teacher.check=off")
    assert not any("another order" in caution for caution in run.cautions)


def test_a_teacher_trained_here_that_learnt_nothing_is_a_caution(tmp_path: Path) -> None:
    lazy = ("teacher.training.epochs=1", "teacher.training.learning_rate=1e-9")
    run, _, heard = until_teacher(tmp_path, *lazy)
    assert any("not surely more than always answering the most frequent class" in line for line in run.cautions)
    assert any("not surely more than always answering the most frequent class" in line for line in heard)
