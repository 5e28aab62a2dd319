"""What a run keeps of the files outside it, so that it goes on with what it was started with."""

import dataclasses
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgestill.distill.result import TuneResult
from edgestill.flows.config import load_config
from edgestill.flows.latency import latency_of
from edgestill.flows.report.again import samples_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.search import latency_model_digest
from edgestill.flows.stages.stage import Results
from edgestill.pipeline.errors import DataError, RunDirError
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.search.latency.model import fit_latency_model, trace_student
from edgestill.search.spaces import ResNetConfig, make_space

SPACE = make_space(ResNetConfig(blocks=((1, 2),) * 3, widths=((4, 6), (6,), (8,))))
SETTINGS = [
    "teacher.architecture=resnet8",
    "search.space={name: resnet, blocks: [[1, 2], [1, 2], [1, 2]], widths: [[4, 6], [6], [8]]}",
]


def save_data(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (132, 8, 8), dtype=np.uint8)
    targets = np.arange(132) % 3
    np.savez(path, x_train=images[:120], y_train=targets[:120], x_test=images[120:], y_test=targets[120:])
    return path


def stage_after_data(folder: Path, *settings: str) -> StageContext:
    config = load_config(settings=[*SETTINGS, *settings])
    run = RunDir.create(folder / "runs", "tiny", config.seed, config)
    stage = StageContext(run, config, lambda done, total, note: None)
    run.finish("data", Data().work(stage, Results()), "inputs", 0.0)
    return resumed(stage)


def resumed(stage: StageContext) -> StageContext:
    """The same run in another process, which has loaded nothing yet."""
    return dataclasses.replace(stage, loaded=[])


def test_other_pixels_in_the_data_file_are_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    data = save_data(tmp_path / "my.npz")
    stage = stage_after_data(tmp_path, f"data={{name: npz, path: {data}}}")
    assert stage.splits() is stage.splits(), "they are loaded once a run"
    save_data(data, seed=1)
    with pytest.raises(DataError, match=r"my\.npz is not what this run was started with: its reference, test, train, "):
        resumed(stage).splits()
    save_data(data)
    assert len(resumed(stage).splits().train) > 0


def test_one_other_test_label_is_refused_too_and_its_split_is_named(tmp_path: Path) -> None:
    data = save_data(tmp_path / "my.npz")
    stage = stage_after_data(tmp_path, f"data={{name: npz, path: {data}}}")
    with np.load(data) as file:
        arrays = dict(file)
    arrays["y_test"][0] ^= 1
    np.savez(data, **arrays)
    with pytest.raises(DataError, match=r"its test split has other examples or labels; put the data back"):
        stage.splits()


def test_a_run_goes_on_by_its_own_copy_of_the_latency_model(tmp_path: Path, make_task) -> None:
    students, task = list(SPACE.all_architectures())[:20], make_task(classes=10)

    def calibrate(factor: float) -> Path:
        samples = [(a, factor * (0.1 + sum(list(a.choices.values())[:3]))) for a in students]
        path = tmp_path / "pi.json"
        path.write_text(fit_latency_model(SPACE, {}, task, samples, device="pi").to_json())
        return path

    settings = [f"search.latency={{source: model, model: {calibrate(1)}}}", "search.budget.max_latency_ms=1000"]
    stage = stage_after_data(tmp_path, *settings)
    architecture = SPACE.sample(random.Random(0))

    def predicted() -> float:
        source = latency_of(stage, task)
        assert source is not None
        return source.find(architecture, trace_student(SPACE, architecture, task)).latency_ms

    before, digest = predicted(), latency_model_digest(stage)
    calibrate(3)
    assert (predicted(), latency_model_digest(stage)) == (before, digest)
    (tmp_path / "pi.json").unlink()
    assert (predicted(), latency_model_digest(stage)) == (before, digest)


def test_the_batch_that_candidates_are_scored_on_is_cropped_and_flipped_where_it_is_asked_for(tmp_path: Path) -> None:
    data = f"data={{name: npz, path: {save_data(tmp_path / 'my.npz')}, augment: {{pad: 1, flip: true}}}}"
    small = "search.batch_size=16"
    plain, augmented, again = (
        stage.scoring_batch(stage.splits())
        for stage in (
            stage_after_data(tmp_path / name, data, small, *more)
            for name, more in (
                ("a", ()),
                ("b", ("search.batch_augmented=true",)),
                ("c", ("search.batch_augmented=true",)),
            )
        )
    )
    assert torch.equal(augmented.targets, plain.targets)
    assert torch.equal(augmented.inputs, again.inputs)
    assert not torch.equal(augmented.inputs, plain.inputs)
    for image, original in zip(augmented.inputs, plain.inputs, strict=True):
        padded = torch.nn.functional.pad(original, (1, 1, 1, 1))
        crops = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        assert any(torch.equal(image, crop) or torch.equal(image, crop.flip(2)) for crop in crops)


def test_a_result_that_no_stage_has_is_told_with_the_way_out() -> None:
    with pytest.raises(RunDirError, match=r"names no stage with a TuneResult; .* `edgestill resume`"):
        Results().of(TuneResult)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"teacher": [1.0], "fp32": [0.5', "Invalid JSON"),
        ('{"teacher": [1.0]}', "it has no samples of 'fp32'"),
        ('{"teacher": [1.0], "fp32": []}', "fp32: List should have at least 1 item"),
        ('{"teacher": [1.0], "fp32": [NaN]}', "fp32.0: Input should be"),
        ('{"teacher": [1.0], "fp32": {"0": 1}}', "fp32: Input should be a valid array"),
        ("[1.0]", "Input should be"),
    ],
)
def test_damaged_latency_samples_are_refused_with_the_file_and_the_place(tmp_path, text, why) -> None:
    with RunDir.create(tmp_path, "run", 0, load_config(preset="digits")) as run:
        path = run.write("profile", "samples_ms.json", '{"teacher": [1.0, 2], "fp32": [0.5]}')
        assert samples_of(run, {"teacher": "teacher", "student": "fp32"}) == {"teacher": [1.0, 2.0], "student": [0.5]}
        path.write_text(text)
        with pytest.raises(RunDirError, match=re.escape(f"{path} is damaged (")) as refused:
            samples_of(run, {"teacher": "teacher", "student": "fp32"})
    assert why in str(refused.value)
