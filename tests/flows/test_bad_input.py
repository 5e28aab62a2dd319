"""Mistakes at the command line: one sentence each, all of a configuration's at once, nothing left behind."""

import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from edgestill.flows.cli.main import execute
from edgestill.flows.config import RunConfig, commented_yaml, config_of, load_config, preset_names
from edgestill.flows.config.loading import changed
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.teacher import Teacher
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.errors import ConfigError, MissingDependencyError, RunDirError
from edgestill.pipeline.runs.rundir import RunDir


def problems_of(*settings: str, preset: str | None = "digits", path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, preset, settings)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["search.bugdet.max_params=5"], "search.bugdet: unknown key; did you mean 'budget'?"),
        (["search.budget.max_parms=5"], "search.budget.max_parms: unknown key; did you mean 'max_params'"),
        (["seed=x"], "seed: "),
        (
            ["teacher.training.epochs=0"],
            "teacher.training.epochs: input should be greater than or equal to 1 (found 0)",
        ),
        (["distill.methods=[kdd]"], "distill.methods.0.name: unknown 'kdd'; did you mean 'kd' or 'rkd' or 'kd3'?"),
        (["distill.methods=[kd, kd]"], "distill.methods: method 'kd' is listed twice"),
        (["distill.methods=[]"], "distill.methods: lists no method"),
        (
            ["distill.methods=[{name: kd, temprature: 3}]"],
            "distill.methods.0.temprature: unknown key; did you mean 'temp",
        ),
        (["distill.methods=[{name: kd, temperature: -1}]"], "distill.methods.0.temperature: input should be greater"),
        (["search.space=nb200"], "search.space.name: unknown 'nb200'; did you mean 'nb201'?"),
        (["search.space.block=[[1],[1],[1]]"], "search.space.block: unknown key; did you mean 'blocks'?"),
        (["search.scorer=diswott"], "search.scorer: unknown 'diswott'; did you mean 'diswot'"),
        (["teacher.architecture=resnet57"], "teacher.architecture: unknown 'resnet57'; did you mean 'resnet56'"),
        (["data=digts"], "data.name: unknown 'digts'; did you mean 'digits'?"),
        (["data=npz"], "data.path: is required"),
        (["data.name=npz", "data.path=/not/there.npz"], "data.path: no file at /not/there.npz"),
        (["teacher.weights=/not/there.pt"], "teacher.weights: no file at /not/there.pt"),
        ([f"data={{name: npz, path: {__file__}, labels: [a, a]}}"], "data.labels: two classes have the same name"),
        ([f'data={{name: npz, path: {__file__}, labels: [a, "b\\nc"]}}'], "data.labels: 'b\\nc' is no class name"),
        (["distill.methods=hard"], "distill.methods: expected a list, such as [hard] (found 'hard')"),
        (["search.space.widths=3"], "search.space.widths: expected a list, such as [3]"),
        (["prune=l1"], "prune: expected keys of its own, such as prune.method=…; known: method, keep"),
        (["tune=off"], "tune: expected keys of its own, such as tune.enabled=…; known: enabled, trials"),
        (["no_equals_sign"], "--set no_equals_sign: expected dotted.key=value"),
        (["name=../escape"], "name: "),
        (
            ["search.batch_augmented=true", "data.augment.pad=0"],
            "the configuration: search.batch_augmented crops and flips as data.augment says, which does neither; set ",
        ),
        (
            ["search={budget: {max_params: 1, max_params: 2}}"],
            "the value of --set search, line 1: budget.max_params stan",
        ),
        (["card.limits=see #12"], "--set card.limits: YAML takes '#12' for a comment"),
        (["name=a: b: c"], "the value of --set name is not YAML"),
        (["data={name: npz, path: ~/not-there.npz}"], f"data.path: no file at {Path.home()}/not-there.npz"),
        (["teacher.weights=~nobody-of-this-name/x.pt"], "teacher.weights: ~nobody-of-this-name is nobody's home here"),
    ],
)
def test_a_mistake_names_its_place_what_was_found_and_the_way_out(settings: list[str], expected: str) -> None:
    (problem,) = problems_of(*settings)
    assert problem.startswith(expected if expected.startswith(("--set ", "the ")) else f"--set {expected}")


def test_all_mistakes_of_a_configuration_are_reported_at_once(tmp_path: Path) -> None:
    wrong = {"seed": "x", "search": {"scorer": "nope", "budget": {"max_params": -1}}, "colour": "red"}
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(wrong))
    found = problems_of("distill.methods=[kdd]", "oops", preset=None, path=path)
    lines = {"colour": 1, "search.budget.max_params": 4, "search.scorer": 5, "seed": 6}
    for place in (*(f"{path}:{line}: {key}: " for key, line in lines.items()), "--set distill.methods.0", "--set oops"):
        assert any(problem.startswith(place) for problem in found), place


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("name: a\n\nsearch:\n  budget: {\n    max_parms: 5}\n", (), "{}:5: search.budget.max_parms: unknown key"),
        ("distill:\n  methods:\n  - kd\n  - {name: lelp, subclases: 3}\n", (), "{}:4: distill.methods.1.subclases: "),
        ("# a\ndata: npz\n", (), "{}:2: data.path: is required"),
        ("a: &x {epochs: 0}\nteacher: {training: *x}\n", (), "{}:1: teacher.training.epochs: input"),
        ("data: {name: npz}\nname: a\n", ("data.path=no.npz",), "--set data.path: no file at no.npz"),
        ("name: a\nseed: 1\n", ("seed=x",), "--set seed: input should be a valid integer"),
        ("export: {interface: image}\ndata: {name: text, path: .}\n", (), "{}: the configuration: export.interface"),
    ],
)
def test_a_mistake_in_a_file_names_its_line_and_one_in_a_setting_its_flag(
    text: str, settings: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    found = problems_of(*settings, preset=None, path=path)
    assert found[0].startswith(expected.format(path)), found


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "!!python/object/apply:os.system ['touch hacked']"])
def test_a_file_that_is_no_mapping_is_refused_and_never_executed(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("c.yaml")
    path.write_text(text)
    (problem,) = problems_of(preset=None, path=path)
    assert problem.startswith("c.yaml")
    assert not Path("hacked").exists()


def test_a_file_whose_keys_stand_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nsearch: {budget: {max_params: 9}}\nsearch:\n  draws: 1\n  draws: 2\n")
    assert sorted(problems_of(preset=None, path=path)) == [
        f"{path}, lines 2 and 3: search stands twice, and all but one would be lost; join them",
        f"{path}, lines 4 and 5: search.draws stands twice, and all but one would be lost; join them",
    ]


def test_values_are_what_a_person_means_in_files_as_in_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 007\ndevice: {threads: 010}\ntune: {enabled: off}\nsearch: {evaluations: 1_000}\n")
    settings = ["seed=007", "device.threads=010", "tune.enabled=off", "search.evaluations=1_000"]
    for config in (load_config(path), load_config(settings=settings)):
        found = (config.seed, config.device.threads, config.tune.enabled, config.search.evaluations)
        assert found == (7, 10, False, 1000)
    assert load_config(settings=["device.threads=2", "device.threads=1"]).device.threads == 1


def test_the_home_folder_is_put_in_for_a_tilde_in_every_path(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = [
        "data={name: text, path: ~/t, tokenizer: {file: ~/k}}", "teacher={weights: ~/w}",
        "search={space: text_transformer, latency: {source: model, model: ~/m}}",
    ]  # fmt: skip
    config = load_config(settings=given, check_files=False)
    found = [config.data.path, config.data.tokenizer.file, config.teacher.weights, config.search.latency.model]
    assert found == [tmp_path / name for name in "tkwm"]
    assert load_config(settings=["teacher.folder=~/f"], check_files=False).teacher.folder == tmp_path / "f"
    for name in ("cifar", "npz"):
        config = load_config(settings=[f"data={{name: {name}, path: ~/d}}"], check_files=False)
        assert config.data.path == tmp_path / "d"
    for arguments in (["runs", "--out=~/there"], ["runs", "--out", "~/there"]):
        assert execute(arguments) == 0
        assert f"no runs in {tmp_path}/there" in capsys.readouterr().out


def test_settings_may_come_in_any_order() -> None:
    with_path = ["data.path=x.npz", "data.name=npz"]
    one, other = (load_config(None, "digits", s, check_files=False) for s in (with_path, with_path[::-1]))
    assert one == other


def test_another_data_set_of_images_keeps_splits_and_augmentation_and_texts_do_not() -> None:
    images = load_config(None, "cifar10", ["data.name=npz", "data.path=x.npz"], check_files=False).data
    assert images.augment == AugmentConfig(pad=4, flip=True)
    assert images.labels is None, "what only some data sets have goes"
    own = load_config(None, "cifar10", ["data={name: npz, path: x.npz, augment: {pad: 1}}"], check_files=False).data
    assert own.augment == AugmentConfig(pad=1, flip=True)
    text = load_config(
        None, "cifar10", ["data.name=text", "data.path=x", "search.space=text_transformer"], check_files=False
    )
    assert text.data.augment == AugmentConfig()


@pytest.mark.parametrize("preset", preset_names())
def test_a_commented_configuration_reads_back_as_the_preset_it_was_made_from(preset: str, tmp_path: Path) -> None:
    config = load_config(preset=preset, check_files=False)
    path = tmp_path / "c.yaml"
    path.write_text(commented_yaml(config))
    assert load_config(path, check_files=False) == config


def test_every_key_of_the_configuration_is_commented_or_speaks_for_itself() -> None:
    text = commented_yaml(RunConfig())
    for key in ("max_params:", "temperature:", "reference_fraction:", "patience:"):
        lines = [line for line in text.splitlines() if line.strip().startswith(key)]
        assert lines
        assert all("#" in line for line in lines)


def save_npz(path: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (120, 8, 8), dtype=np.uint8),
        "y_train": np.arange(120) % 3,
        "x_test": rng.integers(0, 256, (12, 8, 8), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
    }
    np.savez(path, **(arrays | changes))
    return path


def test_bad_data_leaves_no_run_behind(here, tiny_arguments, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "gap.npz", y_train=np.arange(120) % 3 * 2)
    failed = here("run", *tiny_arguments(data__name="npz", data__path=str(path)), "--out", str(tmp_path / "runs"))
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "class 1" in failed.stderr.splitlines()[-1]
    assert not list((tmp_path / "runs").glob("*"))


def test_a_budget_that_nothing_meets_is_refused_before_anything_is_trained(here, tiny_arguments, tmp_path) -> None:
    failed = here("run", *tiny_arguments(search__budget__max_params="100"), "--out", str(tmp_path / "runs"))
    assert failed.returncode == 2
    assert "the nearest is 1-1-1/8-8-16" in failed.stderr
    assert "above max_params 100" in failed.stderr
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.engines
def test_a_teacher_of_another_architecture_or_size_is_refused(here, tiny_arguments, tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "other.pt")
    failed = here("run", *tiny_arguments(teacher__weights=str(tmp_path / "other.pt")), "--out", str(tmp_path / "r"))
    assert failed.returncode == 2
    assert "checkpoint of another architecture" in failed.stderr.splitlines()[-1]


@pytest.mark.engines
def test_teacher_weights_of_another_image_size_are_refused(
    finished_run: Path, here, tiny_arguments, tmp_path: Path
) -> None:
    path = save_npz(
        tmp_path / "large.npz",
        x_train=np.zeros((120, 12, 12), np.uint8),
        y_train=np.arange(120) % 10,
        x_test=np.zeros((20, 12, 12), np.uint8),
        y_test=np.arange(20) % 10,
    )
    weights = str(finished_run / "teacher" / "weights.safetensors")
    arguments = tiny_arguments(data__name="npz", data__path=str(path), teacher__weights=weights)
    failed = here("run", *arguments, "--out", str(tmp_path / "r"))
    assert failed.returncode == 2
    assert "images of 8 x 8 pixels, and the data's are 12 x 12" in failed.stderr


def test_unknown_commands_and_options_are_usage_errors(here) -> None:
    for arguments in (["frobnicate"], ["run", "--frobnicate"], ["run", "--set"], ["show"], ["run"]):
        failed = here(*arguments)
        assert failed.returncode == 2, arguments
        assert "Traceback" not in failed.stderr


def test_debug_shows_the_traceback_that_is_hidden_otherwise(edgestill, here) -> None:
    assert "Traceback" not in here("run", "--preset", "nope").stderr
    assert "Traceback" in edgestill("run", "--preset", "nope", "--debug").stderr


def test_init_does_not_overwrite(here, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    assert here("init", str(path)).returncode == 0
    before = path.read_bytes()
    assert here("init", str(path)).returncode == 2
    assert path.read_bytes() == before


def test_help_answers_in_half_a_second_and_imports_nothing_slow(command_environment: dict[str, str]) -> None:
    import subprocess

    code = "import sys; sys.argv = ['edgestill', '--help']\nfrom edgestill.flows.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'prefect', 'optuna', 'onnx', 'pydantic', 'numpy') if m in sys.modules])"
    fastest = 9.0
    for _ in range(3):
        start = time.perf_counter()
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=command_environment)
        fastest = min(fastest, time.perf_counter() - start)
    assert told.stdout.rstrip().endswith("[]")
    assert "resume" in told.stdout
    assert fastest < 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init", "a_file/x.yaml"], "a_file"),
        (["run", "--preset", "digits", "--out", "a_file"], "a_file"),
        (["keygen", "/proc/no/where"], "/proc/no"),
        (["profile", "missing.onnx"], "there is no file missing.onnx"),
    ],
)
def test_a_path_that_cannot_be_used_is_the_users_mistake(arguments, said, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    assert execute(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "our mistake" not in error


def test_init_shows_the_keys_of_what_is_set(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["init", "--set", "distill.methods=[hard]"]) == 0
    assert "augmented_weight:" in Path("edgestill.yaml").read_text()


def test_the_version_is_told(capsys) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"edgestill {metadata.version('edgestill')}\n"


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        ([], [], 12),
        (["rank_check.students=30"], [], 30),
        (["rank_check.students=30", "rank_check.only=true"], [], 30),
        (["rank_check.students=30"], ["--students", "5"], 5),
    ],
)
def test_a_rank_check_trains_as_many_students_as_the_configuration_says(
    settings, given, expected, monkeypatch, tmp_path
) -> None:
    found = []
    monkeypatch.setattr("edgestill.flows.cli.run.start", lambda config, *rest: found.append(config.rank_check))
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert execute(["rank-check", "--preset", "digits", *arguments, *given]) == 0
    assert [(check.students, check.only) for check in found] == [(expected, True)]


def run_that_fails(tmp_path: Path, monkeypatch, stage: type, error: BaseException) -> int:
    """`edgestill run` up to a stage that raises."""

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(stage, "work", fail)
    return execute(["run", "--preset", "digits", "--out", str(tmp_path), "--quiet", "--no-prefect"])


@pytest.mark.parametrize(
    ("error", "code"), [(MissingDependencyError("no such library"), 2), (KeyboardInterrupt(), 130)], ids=str
)
def test_a_run_that_has_finished_a_stage_says_how_it_goes_on(error, code, tmp_path, monkeypatch, capsys) -> None:
    assert run_that_fails(tmp_path, monkeypatch, Teacher, error) == code
    (run,) = tmp_path.glob("*")
    said = capsys.readouterr().err
    assert f"the run is kept: `edgestill resume {run}` goes on with it" in said
    assert said.endswith("\ninterrupted\n" if code == 130 else "\nerror: no such library\n")


def test_an_interrupted_run_that_was_discarded_is_not_to_be_resumed(tmp_path, monkeypatch, capsys) -> None:
    assert run_that_fails(tmp_path, monkeypatch, Data, KeyboardInterrupt()) == 130
    assert list(tmp_path.glob("*")) == []
    said = capsys.readouterr().err
    assert said.endswith("interrupted\n")
    assert "resume" not in said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"search": {"scorer": "gone"}}, "search.scorer: unknown 'gone'; known: az_trainability, diswot"),
        (
            {"search": {"space": {"name": "gone", "depth": 2}}},
            "search.space.name: unknown 'gone'; known: backbones, causal_transformer, layers_of_teacher",
        ),
        (
            {"distill": {"methods": [{"name": "gone"}]}},
            "distill.methods.0.name: unknown 'gone'; did you mean 'none' or 'tgeo'?",
        ),
        (
            {"teacher": {"name": "gone"}},
            "teacher.name: unknown 'gone'; did you mean 'onnx'? known: ensemble, hf, onnx, outputs, python",
        ),
        ({"export": {"formats": ["gone"]}}, "export.formats: unknown format 'gone'; known: coreml"),
    ],
)
def test_a_run_whose_plug_in_is_gone_names_it_the_known_ones_and_the_way_out(tmp_path, raw, said):
    with RunDir.create(tmp_path, "run", 0, load_config(preset="digits")) as run:
        (run.root / "config.yaml").write_text(yaml.safe_dump(raw))
        with pytest.raises(RunDirError) as refused:
            config_of(run)
    first, *_, last = refused.value.args
    assert first.startswith(f"{run.root / 'config.yaml'}: {said}")
    assert last.startswith("install again the plug-in that offered what is unknown")


def test_a_switch_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("device:\n  threads: true\n")
    with pytest.raises(ConfigError) as refused:
        load_config(path, settings=["search.space={name: resnet, blocks: [[1], [true], [1]]}", "tune.enabled=true"])
    assert list(refused.value.problems) == [
        f"{path}:2: device.threads: should be a number (found True)",
        "--set search.space.blocks.1.0: should be a number (found True)",
    ]
    with pytest.raises(ConfigError, match=r"device.threads: should be a number"):  # as `resume --set` does
        changed(load_config(), {}, ["device.threads=true"])
