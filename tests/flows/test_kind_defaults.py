"""Data that are not images: what a configuration leaves out is chosen for their kind."""

from pathlib import Path

import pytest

from edgestill.flows.config import load_config

TEXT = ["data.name=text", "data.path=x.csv"]


def test_two_settings_make_a_whole_configuration_for_texts() -> None:
    notes: list[str] = []
    config = load_config(settings=TEXT, check_files=False, note=notes.append)
    preset = load_config(preset="sst2", check_files=False)
    assert config.teacher == preset.teacher
    assert config.search == preset.search.model_copy(update={"budget": config.search.budget})
    assert config.search.budget.max_params is None, "a budget is the user's"
    assert (config.tune, config.distill) == (preset.tune, preset.distill)
    assert config.data.columns is None
    (note,) = notes
    assert "teacher and search.space, not given, are those of the preset sst2" in note


def test_what_is_given_stays() -> None:
    own = ["teacher.training.epochs=3", "search.space.depth=[1]", "distill.training.epochs=2"]
    config = load_config(settings=[*TEXT, *own], check_files=False)
    assert (config.teacher.training.epochs, config.distill.training.epochs) == (3, 2)
    assert (config.search.space.name, config.search.space.depth) == ("text_transformer", (1,))
    of_a_folder = load_config(settings=[*TEXT, "teacher.folder=bert"], check_files=False)
    assert of_a_folder.teacher.training == load_config().teacher.training
    assert of_a_folder.search.space.name == "text_transformer"


@pytest.mark.parametrize(
    "settings",
    [
        ["data=digits"],
        ["data={name: npz, path: x.npz}"],
        [*TEXT, "teacher.architecture=text_transformer_2x128", "search.space=text_transformer"],
    ],
)
def test_images_and_configurations_with_a_teacher_and_a_space_keep_the_general_defaults(
    settings: list[str], tmp_path: Path
) -> None:
    notes: list[str] = []
    config = load_config(settings=settings, check_files=False, note=notes.append)
    assert notes == []
    assert (config.tune, config.distill) == (load_config().tune, load_config().distill)
