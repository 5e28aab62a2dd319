"""A run in parts: up to a stage, and on from it, in the run itself or in a new one beside it."""

import shutil
from pathlib import Path

import pytest

from edgestill.flows.chain import LAST, stage_names, stages_of
from edgestill.flows.config import RunConfig, config_of, load_config
from edgestill.flows.outcome import Part
from edgestill.flows.reconfigure import going_on
from edgestill.flows.runner import new_run, run_part
from edgestill.pipeline.errors import ConfigError, UserError
from edgestill.pipeline.runs.rundir import RunDir


def test_a_part_ends_with_the_last_stage_that_takes_part_up_to_its_name() -> None:
    config = RunConfig()
    ends = {name: [stage.name for stage in stages_of(config, last)][-1] for name, last in LAST.items()}
    assert ends == {"search": "tournament", "distill": "distill", "export": "qat", "profile": "profile"}
    assert tuple(stage.name for stage in stages_of(config)) == stage_names(config)


@pytest.mark.parametrize("driver", ["federated", "{name: generations, generations: 2}"])
def test_drivers_whose_training_cannot_be_repeated_have_no_baselines(driver: str) -> None:
    plain, driven = load_config(preset="digits"), load_config(preset="digits", settings=[f"distill.driver={driver}"])
    assert set(stage_names(plain)) - set(stage_names(driven)) == {"baselines"}


def test_settings_that_nothing_finished_has_read_change_the_run_itself(tmp_path: Path) -> None:
    with RunDir.create(tmp_path, "run", 0, load_config(None, "digits", [])) as run:
        pass
    with going_on(run.root, ["distill.methods=[lelp]"], new_run) as same:
        assert same.root == run.root
        assert [method.name for method in config_of(same).distill.methods] == ["lelp"]


def test_a_wrong_setting_and_one_that_is_not_allowed_change_nothing(tmp_path: Path) -> None:
    with RunDir.create(tmp_path, "run", 0, load_config(None, "digits", [])) as run:
        before = (run.root / "config.yaml").read_bytes()

    def refuse(config: RunConfig) -> None:
        raise UserError(f"{config.seed} is not allowed")

    with (
        pytest.raises(ConfigError, match="unknown 'nothing'"),
        going_on(run.root, ["distill.methods=[nothing]"], new_run),
    ):
        pass
    with pytest.raises(UserError, match="7 is not allowed"), going_on(run.root, ["seed=7"], new_run, refuse):
        pass
    assert (run.root / "config.yaml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [run.root.name]


@pytest.mark.engines
def test_settings_that_a_finished_stage_has_read_make_a_run_that_repeats_nothing_before_it(
    finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "first")
    first = RunDir.view(tmp_path / "first")
    told: list[str] = []
    with going_on(first.root, ["export.formats=[fp32]"], new_run) as run:
        assert run.root.parent == tmp_path
        assert list(run.manifest.stages) == ["data", "teacher", "search", "tournament", "tune", "distill"]
        assert run.manifest.stages == {name: first.manifest.stages[name] for name in run.manifest.stages}
        part = run_part(run, LAST["export"], call=lambda name, work: told.append(name) or work())
    assert isinstance(part, Part)
    assert list(RunDir.view(part.run).manifest.stages)[-2:] == ["export", "qat"]
    assert not (part.run / "bundle").exists()
    assert len(list((first.root / "export").glob("*.onnx"))) > len(list((part.run / "export").glob("student*.onnx")))
    again = (part.run / "distill" / "weights.safetensors").read_bytes()
    assert again == (first.root / "distill" / "weights.safetensors").read_bytes()
