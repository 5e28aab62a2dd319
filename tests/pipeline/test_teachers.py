"""The table of teachers: promises of every family, and how a configuration chooses one."""

from typing import ClassVar, Literal

import pytest
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from edgestill.flows.config import load_config
from edgestill.flows.config.explaining import explain
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.conformance.suite import NotHereError
from edgestill.pipeline.conformance.teachers import CHECKS
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.input_kind import INPUT_KINDS
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.teachers import (
    TEACHERS,
    FamilyConfig,
    Teacher,
    TeacherConfig,
    build_teacher,
    config_type,
    load_teacher,
    make_teacher,
)

NAMES = [name for family in TEACHERS.values() for name in family.architectures]


class FlatConfig(FamilyConfig):
    name: Literal["flat"] = "flat"
    width: int = Field(3, ge=1)


class FlatTeacher(Teacher):
    """A family as a third party writes it."""

    Config: ClassVar[type[FlatConfig]] = FlatConfig
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    title = "flat"
    source = None

    def build(self, task):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(self.config.width), nn.Linear(3, task.num_classes))


@pytest.fixture
def task_of(make_task, make_token_task):
    return {"image": make_task(), "text": make_token_task()}


@pytest.mark.parametrize("family", TEACHERS.values(), ids=TEACHERS)
def test_a_family_takes_kinds_of_input_that_there_are(family):
    assert family.kinds
    assert family.kinds <= set(INPUT_KINDS)


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_family_passes(check, name):
    try:
        check(name)
    except NotHereError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_belongs_to_one_family(name):
    found = [key for key, family in TEACHERS.items() if name in family.architectures]
    assert [TeacherConfig(architecture=name).name] == found


def test_a_teacher_of_another_kind_of_input_is_refused_with_those_that_fit(task_of):
    with pytest.raises(ConfigError, match=r"architecture: resnet8 takes no text; those that do: text_tr.*x512$"):
        build_teacher(TeacherConfig(architecture="resnet8"), task_of["text"])
    with pytest.raises(ConfigError, match=r"text_transformer_2x128 takes no image; those that do: resnet8, .*110$"):
        build_teacher(TeacherConfig(architecture="text_transformer_2x128"), task_of["image"])


def test_the_keys_of_the_first_families_are_those_that_older_runs_wrote():
    """config.yaml of a run from before families had a table; later keys have defaults that change nothing."""
    written = {
        "architecture": "resnet20", "shortcut": "B", "dropout": 0.1, "weights": None, "folder": None, "mean": [0.5],
        "std": [0.2], "image_size": None,
        "training": {"epochs": 30, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0005,
                     "warmup_epochs": 1.0, "patience": 0},
    }  # fmt: skip
    config = TeacherConfig.model_validate(written)
    found = config.model_dump(mode="json")
    assert {name: found[name] for name in written} | {"training": written["training"]} == written
    assert {name: found["training"][name] for name in written["training"]} == written["training"]
    later = {name: found[name] for name in found.keys() - written.keys()}
    assert later == {"check": "error", "order": None}
    later = {name: found["training"][name] for name in found["training"].keys() - written["training"].keys()}
    assert later == {"metric": "accuracy", "balance": "none"}


def test_weights_beside_a_folder_are_refused():
    with pytest.raises(ValidationError, match="a folder brings its own weights"):
        TeacherConfig(weights="a.safetensors", folder="b")


def test_foreign_weights_of_another_image_size_are_refused(make_task, tmp_path):
    task, path = make_task(side=8), tmp_path / "theirs.safetensors"
    path.write_bytes(weights_bytes(build_teacher(TeacherConfig(architecture="resnet8"), task)))
    load_teacher(TeacherConfig(architecture="resnet8", image_size=8), task, path)
    with pytest.raises(CheckpointError, match="trained on images of 32 x 32 pixels"):
        load_teacher(TeacherConfig(architecture="resnet8", image_size=32), task, path)


# A family of a third party


@pytest.fixture
def with_flat(monkeypatch):
    monkeypatch.setitem(TEACHERS, "flat", FlatTeacher)
    return TypeAdapter(config_type(TEACHERS))


def test_a_name_chooses_a_familys_own_settings_and_no_name_the_built_in_ones(with_flat, task_of):
    config = with_flat.validate_python({"name": "flat", "training": {"epochs": 2}})
    assert config == FlatConfig(training={"epochs": 2})
    assert with_flat.validate_python(config) == config
    assert make_teacher(config).metadata(task_of["image"]) == {"architecture": "flat", "input_shape": "1x8x8"}
    assert build_teacher(config, task_of["image"])(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert with_flat.validate_python({"architecture": "resnet8"}) == TeacherConfig(architecture="resnet8")
    assert with_flat.validate_python({}) == TeacherConfig()


def test_a_named_teacher_over_a_presets_built_in_one_keeps_its_training_alone(with_flat, monkeypatch, tmp_path):
    class Config(RunConfig):
        teacher: config_type(TEACHERS) = TeacherConfig()

    monkeypatch.setattr("edgestill.flows.config.loading.RunConfig", Config)
    before = load_config(None, "digits").teacher
    assert before.architecture == "resnet56"
    for settings in (["teacher.width=3", "teacher.name=flat"], ["teacher={name: flat, width: 3}"]):
        found = load_config(None, "digits", [*settings, "teacher.training.epochs=2"]).teacher
        assert found == FlatConfig(width=3, training=before.training.model_copy(update={"epochs": 2}))
    (tmp_path / "flat.yaml").write_text("teacher: {name: flat, width: 3}")
    assert load_config(tmp_path / "flat.yaml", "digits").teacher == FlatConfig(width=3, training=before.training)
    with pytest.raises(ConfigError, match=r"^--set teacher.architecture: unknown key; it is of a built-in one"):
        load_config(None, "digits", ["teacher.name=flat", "teacher.architecture=resnet8"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"name": "flat", "width": 0}, "teacher.width: input should be greater than or equal to 1 (found 0)"),
        (
            {"name": "flat", "depth": 1},
            "teacher.depth: unknown key; did you mean search.space.depth? known: check",
        ),
        ({"architecture": "resnet7"}, "teacher.architecture: unknown 'resnet7'; did you mean 'resnet8'"),
        ({"dropuot": 1}, "teacher.dropuot: unknown key; did you mean 'dropout'"),
        ({"name": "falt"}, "teacher.name: unknown 'falt'; did you mean 'flat'"),
    ],
)
def test_mistakes_are_told_as_the_user_wrote_them(with_flat, monkeypatch, given, sentence):
    class Config(RunConfig):
        teacher: config_type(TEACHERS) = TeacherConfig()

    monkeypatch.setattr("edgestill.flows.config.explaining.RunConfig", Config)
    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"teacher": given})
    (line,) = explain(refused.value, {"teacher": given})
    assert line.startswith(sentence)
