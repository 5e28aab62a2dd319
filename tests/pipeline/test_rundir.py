"""The run directory: whole files, one holder, what is done and whether it was altered since."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen, digest
from edgestill.pipeline.runs.find import find_run, list_runs
from edgestill.pipeline.runs.rundir import RunDir, file_digest


class Config(Frozen):
    learning_rate: float = 0.1
    note: str = "grün"


class Result(Frozen):
    accuracy: float


@pytest.fixture
def run(tmp_path):
    with RunDir.create(tmp_path, "digits", 7, Config()) as run:
        yield run


def finish(run, stage="search", accuracy=0.5, inputs="inputs", **options):
    run.finish(stage, Result(accuracy=accuracy), inputs, 1.23456, **options)


# Creating, finding, holding


def test_a_new_run_holds_its_configuration_and_what_made_it(run):
    manifest = json.loads((run.root / "manifest.json").read_text())
    assert manifest["name"] == "digits"
    assert manifest["seed"] == 7
    assert manifest["config_digest"] == digest(Config())
    assert manifest["schema"] == 1
    assert manifest["stages"] == {}
    assert {"torch", "numpy", "optuna"} <= set(manifest["versions"])
    assert manifest["machine"]["cores"] >= 1
    assert yaml.safe_load((run.root / "config.yaml").read_text(encoding="utf-8")) == Config().model_dump()
    assert "grün" in (run.root / "config.yaml").read_text(encoding="utf-8")
    assert run.config(Config) == Config()


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    runs = [RunDir.create(tmp_path, "digits", 0, Config()) for _ in range(4)]
    for run in runs:
        run.close()
    assert len({run.root for run in runs}) == 4
    assert set(list_runs(tmp_path)) == {run.root for run in runs}


@pytest.mark.parametrize("folder", ["x?y", "a#b %20 é", "{0}'[*]\\", "two\nlines", '"'])
def test_a_run_may_lie_in_a_folder_of_any_name(folder, tmp_path):
    with RunDir.create(tmp_path / folder, "digits", 0, Config()) as run:
        finish(run)
        run.journal("tune", "j", "").append({"a": 1})
    assert list_runs(tmp_path / folder) == [run.root]
    assert find_run("latest", tmp_path / folder) == run.root
    assert RunDir.view(run.root).read("search", Result) == Result(accuracy=0.5)
    assert list(tmp_path.iterdir()) == [tmp_path / folder]


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RunDirError, match=r"^--out: '.*caf\\udce9' is not UTF-8, .* rename it"):
        RunDir.create(tmp_path / os.fsdecode(b"caf\xe9"), "digits", 0, Config())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_could_not_be_begun_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(RunDir, "_save", lambda *_: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        RunDir.create(tmp_path, "digits", 0, Config())
    assert list(tmp_path.iterdir()) == []


def test_the_way_to_go_on_can_be_pasted_into_a_shell(tmp_path):
    run = RunDir.create(tmp_path / "it's a folder", "digits", 0, Config())
    with run, pytest.raises(RunDirError) as caught:
        run.read("search", Result)
    pasted = str(caught.value).split("`")[1]
    assert shlex.split(pasted) == ["edgestill", "resume", str(run.root)]


def test_a_run_is_found_by_path_by_name_and_as_the_latest(tmp_path, monkeypatch):
    for folder in ("20250101_000000_digits_aaaaaa", "20250102_000000_mnist_bbbbbb"):
        with RunDir.create(tmp_path / "elsewhere", "digits", 0, Config()) as run:
            pass
        (tmp_path / "runs").mkdir(exist_ok=True)
        run.root.rename(tmp_path / "runs" / folder)
    parent = tmp_path / "runs"
    assert find_run("latest", parent).name == "20250102_000000_mnist_bbbbbb"
    assert find_run("20250101_000000_digits_aaaaaa", parent) == parent / "20250101_000000_digits_aaaaaa"
    assert find_run(str(parent / "20250101_000000_digits_aaaaaa"), tmp_path) == parent / "20250101_000000_digits_aaaaaa"
    with pytest.raises(RunDirError, match="did you mean '20250101_000000_digits_aaaaaa'"):
        find_run("20250101_000000_digit_aaaaaa", parent)
    with pytest.raises(RunDirError, match="no run at 'latest'; there are no runs in"):
        find_run("latest", tmp_path / "nowhere")


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    for use in (RunDir.open, RunDir.view):
        with pytest.raises(RunDirError, match="is not a run directory"):
            use(tmp_path)
    (tmp_path / "half").mkdir()
    assert list_runs(tmp_path) == []


def test_a_file_is_no_folder_of_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="is no folder; --out takes the folder of the runs"):
        list_runs(tmp_path / "file")
    assert list_runs(tmp_path / "nowhere") == []


HOLD = """
import sys
from pathlib import Path
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.errors import RunDirError
try:
    RunDir.open(Path(sys.argv[1]))
except RunDirError as error:
    print(error)
    sys.exit(3)
print("held", flush=True)
if sys.argv[2] == "die":
    import os
    os._exit(9)
"""


def another_process(run, then="close"):
    return subprocess.run(
        [sys.executable, "-c", HOLD, str(run.root), then], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_process_is_refused_until_the_first_lets_go(run):
    refused = another_process(run)
    assert refused.returncode == 3
    assert "is held by another edgestill process; wait for it" in refused.stdout
    with RunDir.view(run.root) as looked_at:  # looking is always allowed
        assert looked_at.manifest.name == "digits"
    run.close()
    assert another_process(run).stdout == "held\n"


def test_a_process_that_died_does_not_keep_its_run(run):
    run.close()
    assert another_process(run, "die").returncode == 9
    with RunDir.open(run.root) as again:
        assert again.manifest.seed == 7


# Stages


def test_a_stage_is_done_for_the_inputs_that_it_was_finished_with(run):
    assert not run.is_done("search", "inputs")
    run.write("search", "weights.bin", b"data")
    assert not run.is_done("search", "inputs")
    finish(run)
    assert run.is_done("search", "inputs")
    assert not run.is_done("search", "other inputs")
    assert not run.is_done("distill", "inputs")
    assert run.read("search", Result) == Result(accuracy=0.5)
    with RunDir.view(run.root) as later:
        assert later.is_done("search", "inputs")


def test_the_manifest_lists_every_file_of_a_stage_with_its_digest(run):
    run.write("search", "a.bin", b"data")
    run.write("search", "b.txt", "text")
    finish(run)
    record = run.manifest.stages["search"]
    assert record.seconds == 1.235
    assert set(record.files) == {"search/a.bin", "search/b.txt", "search/result.json"}
    for name, found in record.files.items():
        sha256sum = subprocess.run(["sha256sum", run.root / name], capture_output=True, text=True, check=True)
        assert found == sha256sum.stdout.split()[0]


def test_hidden_files_are_removed_when_a_stage_is_finished(run):
    run.write("distill", ".checkpoint.pt", b"state")
    kept = run.write("distill", "curve.csv", "epoch\n")
    other = run.write("tune", ".trial_0.pt", b"state")
    finish(run, "distill")
    assert not (run.root / "distill" / ".checkpoint.pt").exists()
    assert kept.exists()
    assert other.exists()
    assert set(run.manifest.stages["distill"].files) == {"distill/curve.csv", "distill/result.json"}


def test_files_beside_a_stages_folder_belong_to_it_if_named(run):
    run.write_folder("bundle", lambda folder: (folder / "model.onnx").write_bytes(b"model"))
    finish(run, "report", beside=["bundle"])
    assert "bundle/model.onnx" in run.manifest.stages["report"].files
    (run.root / "bundle" / "model.onnx").write_bytes(b"other")
    with pytest.raises(RunDirError, match=r"bundle/model.onnx was altered since the report stage wrote it"):
        run.read("report", Result)


@pytest.mark.parametrize("name", ["weights.bin", "result.json"])
def test_an_altered_or_lost_file_is_noticed(run, name):
    run.write("search", "weights.bin", b"data")
    finish(run)
    path = run.root / "search" / name
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"!")
    with pytest.raises(RunDirError, match=f"{name} was altered since the search stage wrote it"):
        run.read("search", Result)
    path.unlink()
    with pytest.raises(RunDirError, match=f"{name} is missing since the search stage wrote it"):
        run.read("search", Result)
    path.write_bytes(before)
    assert run.read("search", Result) == Result(accuracy=0.5)


def test_an_unfinished_stage_cannot_be_read(run):
    with pytest.raises(RunDirError, match="has not finished its search stage; `edgestill resume"):
        run.read("search", Result)


def test_an_edited_configuration_is_noticed(run):
    (run.root / "config.yaml").write_text("learning_rate: 0.2\nnote: grün\n", encoding="utf-8")
    with pytest.raises(RunDirError, match="is not the configuration that this run was started with"):
        run.config(Config)
    (run.root / "config.yaml").write_text("learning_rat: 0.1\n")
    with pytest.raises(RunDirError, match=r"config.yaml: learning_rat: Extra inputs are not permitted\ninstall again "):
        run.config(Config)
    (run.root / "config.yaml").write_text("learning_rate: [\n")
    with pytest.raises(RunDirError, match="cannot be read"):
        run.config(Config)


class Newer(Config):
    views: int = 0


def test_a_run_of_an_older_version_can_be_looked_at_but_does_not_go_on(run):
    with pytest.raises(RunDirError, match="another version of edgestill"):
        run.config(Newer)
    run.close()
    assert RunDir.view(run.root).config(Newer).model_dump() == {**Config().model_dump(), "views": 0}
    (run.root / "config.yaml").write_text("learning_rate: 0.2\nviews: 0\n", encoding="utf-8")
    with pytest.raises(RunDirError, match="is not the configuration that this run was started with"):
        RunDir.view(run.root).config(Newer)


def test_a_folder_is_there_whole_or_not_at_all(run):
    def half(folder):
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run.write_folder("bundle", half)
    assert not (run.root / "bundle").exists()
    run.write_folder("bundle", lambda folder: (folder / "old").write_text("1"))
    with pytest.raises(OSError, match="No space left"):
        run.write_folder("bundle", half)
    assert [path.name for path in (run.root / "bundle").iterdir()] == ["old"]
    run.write_folder("bundle", lambda folder: (folder / "new").write_text("2"))
    assert [path.name for path in (run.root / "bundle").iterdir()] == ["new"]
    assert {path.name for path in run.root.iterdir()} - {".lock"} == {"bundle", "config.yaml", "manifest.json"}


# What a stage goes on from after a kill


def journal(run, inputs="inputs"):
    return run.journal("search", "history.jsonl", inputs)


def test_a_journal_gives_back_its_entries(run):
    entries = [{"scorer": "nwot", "scores": {"nwot": 0.1 + 0.2}}, {"failure": "größer"}]
    for entry in entries:
        journal(run).append(entry)
    assert journal(run).entries == entries
    assert run.journal("search", "other.jsonl").entries == []


def test_a_line_that_a_kill_tore_is_dropped_and_the_next_one_stands_by_itself(run):
    """Torn at every byte of the second line, and gone on with."""
    first, second, third = ({"candidate": n, "note": "größer"} for n in (1, 12, 3))
    journal(run).append(first)
    path = run.path("search", "history.jsonl")
    before = path.read_bytes()
    journal(run).append(second)
    whole = path.read_bytes()
    for cut in range(len(before), len(whole)):
        path.write_bytes(whole[:cut])
        assert journal(run).entries == [first]
        journal(run).append(third)
        assert journal(run).entries == [first, third]


def test_a_journal_of_one_torn_line_is_empty(run):
    run.path("search", "history.jsonl").write_text('{"a": ')
    assert journal(run).entries == []
    journal(run).append({"a": 1})
    assert journal(run).entries == [{"a": 1}]


@pytest.mark.parametrize("kind", ["state", "journal"])
def test_what_a_stage_goes_on_from_is_refused_elsewhere(run, tmp_path, kind):
    """In a run of another configuration, in another stage, under another name, and for other inputs."""
    with RunDir.create(tmp_path / "other", "digits", 7, Config(learning_rate=0.2)) as other:

        def read(where, stage, name, inputs):
            if kind == "state":
                return where.saved(stage, name, inputs)
            return where.journal(stage, name, inputs).entries

        if kind == "state":
            run.save("distill", ".a.pt", {"epoch": 3}, "inputs")
        else:
            run.journal("distill", ".a.pt", "inputs").append({"epoch": 3})
        written = run.path("distill", ".a.pt").read_bytes()
        assert read(run, "distill", ".a.pt", "inputs") in ({"epoch": 3}, [{"epoch": 3}])
        for where, stage, name, inputs in (
            (run, "distill", ".a.pt", "other data"),
            (run, "distill", ".b.pt", "inputs"),
            (run, "teacher", ".a.pt", "inputs"),
            (other, "distill", ".a.pt", "inputs"),
        ):
            where.path(stage, name).write_bytes(written)
            with pytest.raises(RunDirError, match=rf"{stage}/{name} belongs to another run, or to other data"):
                read(where, stage, name, inputs)


def test_a_file_digest_is_that_of_the_system(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    sha256sum = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert file_digest(path) == sha256sum


# Manifests that are none


def test_a_bundle_is_refused_by_its_name_and_no_lock_is_left_in_it(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    (tmp_path / "manifest.json").write_text('{"schema": "edgestill.manifest/1", "files": {}}')
    for use in (RunDir.open, RunDir.view):
        with pytest.raises(RunDirError, match=r"is a bundle, not a run; `edgestill verify "):
            use(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.json", "manifest.json"}
    assert list_runs(tmp_path.parent) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"schema": 1, "na', "damaged, or not a run's"),
        (b"\xff\xfe", "damaged, or not a run's"),
        (b'{"name": "a web page"}', r"not a run's \(git_commit: Field required\)"),
    ],
)
def test_a_manifest_that_is_torn_or_foreign_is_told_in_a_sentence(run, content, said):
    run.close()
    (run.root / "manifest.json").write_bytes(content)
    (run.root / ".lock").unlink(missing_ok=True)
    with pytest.raises(RunDirError, match=said):
        RunDir.open(run.root)
    assert not (run.root / ".lock").exists()


def test_a_run_of_another_schema_is_refused_with_both_numbers(run):
    manifest = json.loads((run.root / "manifest.json").read_text())
    (run.root / "manifest.json").write_text(json.dumps(manifest | {"schema": 2}))
    with pytest.raises(RunDirError, match=r"has schema 2, and this version of edgestill reads 1"):
        RunDir.view(run.root)


# What a stage leaves beside its folder, and what made it


def test_a_folder_that_was_moved_away_as_a_whole_may_be_missing_where_it_is_asked_for(run):
    run.write_folder("bundle", lambda folder: (folder / "model.onnx").write_bytes(b"model"))
    finish(run, "report", beside=["bundle"])
    (run.root / "bundle").rename(run.root.parent / "elsewhere")
    assert run.read("report", Result, movable="bundle") == Result(accuracy=0.5)
    with pytest.raises(RunDirError, match=r"bundle/model.onnx is missing"):
        run.read("report", Result)
    run.write("report", "result.json", Result(accuracy=0.6))
    with pytest.raises(RunDirError, match=r"result.json was altered"):
        run.read("report", Result, movable="bundle")


def test_a_file_that_a_finished_stage_was_given_later_belongs_to_it(run):
    finish(run, "report")
    run.write("devices", "pi.json", "{}")
    run.add("report", "devices")
    assert set(run.manifest.stages["report"].files) == {"report/result.json", "devices/pi.json"}
    run.write("devices", "pi.json", "{ }")
    with pytest.raises(RunDirError, match=r"devices/pi.json was altered"):
        run.read("report", Result)


def test_an_upgrade_between_two_stages_leaves_each_with_what_made_it(run, monkeypatch):
    def versions(torch):
        monkeypatch.setattr("edgestill.pipeline.runs.manifest.installed_versions", lambda: {"torch": torch})
        run.note_origin()

    versions("1")
    assert run.manifest.earlier == ()  # nothing was done by what made the folder
    finish(run, "data")
    finish(run, "search")
    versions("2")
    finish(run, "distill")
    before = run.manifest
    versions("2")
    assert run.manifest == before
    assert before.versions == {"torch": "2"}
    assert [(entry.stages, entry.versions) for entry in before.earlier] == [(("data", "search"), {"torch": "1"})]


def test_the_commit_is_that_of_the_checkout_and_not_of_the_callers_folder(tmp_path, monkeypatch):
    import edgestill.pipeline.runs.provenance as provenance

    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    monkeypatch.chdir(tmp_path)
    here = provenance.git_commit.__wrapped__()
    others = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert here != others
    installed = tmp_path / "site-packages" / "provenance.py"  # within another project's checkout, not tracked
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.git_commit.__wrapped__() is None


def test_a_stage_taken_over_from_another_run_brings_its_files_and_an_altered_one_is_refused(tmp_path):
    with RunDir.create(tmp_path, "a", 0, Config()) as one, RunDir.create(tmp_path, "b", 0, Config()) as other:
        one.write("teacher", "weights", b"w")
        one.finish("teacher", Result(accuracy=0.5), "inputs", 1.5)
        one.finish("search", Result(accuracy=0.5), "inputs", 1.0)
        other.finish("data", Result(accuracy=0.5), "x", 1.0)
        other.take_over(one, "teacher")
        assert list(other.manifest.stages) == ["data", "teacher"]
        assert other.manifest.stages["teacher"] == one.manifest.stages["teacher"]
        assert (other.root / "teacher" / "weights").read_bytes() == b"w"
        (one.root / "search" / "result.json").write_text("{ }")
        with pytest.raises(RunDirError, match="was altered since its stage wrote it"):
            other.take_over(one, "search")
        assert not other.is_done("search", "inputs")
