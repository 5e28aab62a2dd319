"""The short trainings behind the tournament: rungs that go on from each other, and from a kill after any epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgestill.flows import supervise
from edgestill.flows.config import load_config
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.short_training import ShortTrainings
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import CandidateError
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.teachers import build_teacher, make_teacher
from edgestill.pipeline.training.metrics import packed, right_alone
from edgestill.search.space import Architecture
from edgestill.search.spaces import ResNetSpace

SETTINGS = ["teacher.architecture=resnet8", "distill.training.batch_size=16", "distill.training.patience=1"]
STUDENT, OTHER = "1-1-1/4-4-8", "1-1-1/4-4-16"


@pytest.fixture
def make_stage(tmp_path: Path):
    """A stage of a new run whose teacher is there, if untrained."""
    config = load_config(preset="digits", settings=SETTINGS)
    task = load_splits(config.data, config.seed).task
    weights = weights_bytes(build_teacher(config.teacher, task), make_teacher(config.teacher).metadata(task))

    def make(name: str) -> StageContext:
        run = RunDir.create(tmp_path, name, config.seed, config)
        run.write("teacher", WEIGHTS, weights)
        return StageContext(run, config, lambda done, total, note: None)

    return make


def named(text: str) -> Architecture:
    return ResNetSpace().parse(text)


def played(stage: StageContext) -> tuple[list[tuple[float, str]], dict]:
    """Accuracies with the answers that were right, and the last state."""
    trainings = ShortTrainings(stage, "tournament", 48)
    trained = [trainings(named(STUDENT), rung, 2) for rung in (0, 1)]
    state = stage.saved("tournament", ShortTrainings._file(STUDENT, 1))
    assert state is not None
    for one in trained:
        alone, _ = right_alone(one.right, packed(np.zeros(1, dtype=bool)))
        assert alone == round(one.accuracy * len(trainings.splits.validation))
    return [(one.accuracy, one.right) for one in trained], state


def test_rungs_killed_after_any_epoch_end_with_the_same_bits(make_stage, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, undisturbed = played(make_stage("whole"))
    for kill_at in range(1, 5):
        stage, written = make_stage(f"killed-{kill_at}"), []
        whole = RunDir.save

        def save(run, name, file, state, inputs="", kill_at=kill_at, written=written, whole=whole):
            whole(run, name, file, state, inputs)
            written.append(file)
            if len(written) == kill_at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(RunDir, "save", save)
            with pytest.raises(KeyboardInterrupt):
                played(stage)
            accuracies, state = played(stage)
        assert accuracies == expected
        assert len(written) == 4, "an epoch was trained twice"
        assert [r["epoch"] for r in state["curve"]] == [1, 2]
        for name, value in undisturbed["network"].items():
            assert torch.equal(state["network"][name], value)


def test_a_rung_starts_from_the_weights_of_the_rung_before(make_stage) -> None:
    stage = make_stage("one")
    trainings = ShortTrainings(stage, "tournament", 48)
    for rung in (0, 1):
        trainings(named(STUDENT), rung, 1)
    alone = ShortTrainings(make_stage("two"), "tournament", 48)
    alone(named(STUDENT), 0, 1)
    first, second, again = (
        s.saved("tournament", ShortTrainings._file(STUDENT, rung))
        for s, rung in ((stage, 0), (stage, 1), (alone._context, 0))
    )
    assert all(torch.equal(again["network"][k], v) for k, v in first["network"].items())
    (name, *_) = [name for name in first["network"] if name.endswith("num_batches_tracked")]
    counts = [int(state["network"][name]) for state in (first, second)]
    assert counts == [3, 6]  # 48 images in batches of 16: batch norm has seen both rungs


def test_a_part_of_train_is_drawn_by_seed_and_all_students_share_it(make_stage) -> None:
    stage = make_stage("part")
    trainings, again = (ShortTrainings(stage, "tournament", 48) for _ in range(2))
    assert len(trainings.splits.train) == 48
    assert len(trainings.whole.train) == len(ShortTrainings(stage, "tournament", None).splits.train) == 1009
    assert torch.equal(trainings.splits.train.images, again.splits.train.images)
    trainings(named(STUDENT), 0, 1)
    trainings(named(OTHER), 0, 1)
    rates = [
        stage.saved("tournament", ShortTrainings._file(s, 0))["curve"][0]["learning_rate"] for s in (STUDENT, OTHER)
    ]
    assert rates == [0.0, 0.0]  # a cosine that ends with the rung, whatever distill.training says


def test_a_student_whose_training_killed_its_process_twice_has_failed(make_stage, monkeypatch) -> None:
    death = {"stage": "tournament", "candidate": f"{STUDENT} in rung 1", "how": "was killed by SIGSEGV"}
    monkeypatch.setattr(supervise._NOTES, "place", {"stage": "tournament"})
    monkeypatch.setattr(supervise._NOTES, "deaths", [death, death])
    trainings = ShortTrainings(make_stage("dead"), "tournament", 16)
    with pytest.raises(CandidateError, match=r"^its process was killed by SIGSEGV$"):
        trainings(named(STUDENT), 0, 1)
    assert trainings(named(OTHER), 0, 1).accuracy > 0
