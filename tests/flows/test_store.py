"""Copies of runs in a store: whole or not there, checked by digest, and never outside their folder."""

import json
import os

import pytest

from edgestill.flows.config.model import RunConfig
from edgestill.flows.store.mirror import LIST, pull, push
from edgestill.pipeline.errors import FailedError, MissingDependencyError, RunDirError, UserError
from edgestill.pipeline.runs.rundir import RunDir


@pytest.fixture
def root(tmp_path):
    """A run at rest, with a result file, a deeper one and a checkpoint."""
    with RunDir.create(tmp_path / "runs", "stored", 0, RunConfig()) as run:
        for name, data in (("result.json", b"{}"), (".epoch.pt", b"state"), ("weights.bin", os.urandom(3_000_000))):
            run.path("teacher", name).parent.mkdir(exist_ok=True)
            run.path("teacher", name).write_bytes(data)
    return run.root


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path / 'store'}"


def contents(root):
    return {
        path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_a_pulled_run_is_the_pushed_one_and_can_be_opened(root, url, tmp_path):
    sent, total = push(root, url)
    assert sent == total == len(contents(root))
    pulled = pull(url, root.name, tmp_path / "elsewhere")
    assert contents(pulled) == contents(root)
    with RunDir.open(pulled) as run:
        assert run.manifest.name == "stored"
    assert not list((tmp_path / "elsewhere").glob(".*"))
    with pytest.raises(RunDirError, match="is there already"):
        pull(url, root.name, tmp_path / "elsewhere")


def test_only_what_has_changed_is_sent_again(root, url, tmp_path):
    push(root, url)
    assert push(root, url)[0] == 0
    (root / "teacher" / "result.json").write_text('{"changed": true}')
    assert push(root, url)[0] == 1
    assert contents(pull(url, root.name, tmp_path / "elsewhere")) == contents(root)


def test_a_copy_that_was_cut_is_not_there(root, url, tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    put, left = LocalFileSystem.put_file, [2]

    def cut(self, *given, **named):
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("the line went dead")
        return put(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", cut)
        with pytest.raises(FailedError, match="the line went dead"):
            push(root, url)
    with pytest.raises(RunDirError, match="there is no whole copy"):
        pull(url, root.name, tmp_path / "elsewhere")
    push(root, url)
    assert contents(pull(url, root.name, tmp_path / "elsewhere")) == contents(root)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b"1" + data[1:]])
def test_a_file_that_is_not_the_lists_is_refused_and_nothing_stays(root, url, tmp_path, change):
    push(root, url)
    altered = tmp_path / "store" / root.name / "teacher" / "weights.bin"
    data = altered.read_bytes()
    altered.write_bytes(change(data) if change(data) != data else b"2" + data[1:])
    with pytest.raises(RunDirError, match="was altered or cut"):
        pull(url, root.name, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../b", ".lock", "a//b", "a\\b"])
def test_a_list_that_leads_out_of_the_run_is_refused(root, url, tmp_path, name):
    push(root, url)
    listed = tmp_path / "store" / root.name / LIST
    copy = json.loads(listed.read_text())
    copy["files"][name] = copy["files"]["manifest.json"]
    listed.write_text(json.dumps(copy))
    with pytest.raises(RunDirError, match="names files that no run has"):
        pull(url, root.name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is no name of a run"):
        pull(url, "..", tmp_path / "elsewhere")


def test_a_pipe_in_a_store_is_not_waited_for(root, url, tmp_path):
    push(root, url)
    for name in ("manifest.json", LIST):
        (tmp_path / "store" / root.name / name).unlink()
        os.mkfifo(tmp_path / "store" / root.name / name)
        with pytest.raises(RunDirError, match="is no plain file"):
            pull(url, root.name, tmp_path / "elsewhere")


def test_a_copy_that_is_no_run_leaves_nothing(root, url, tmp_path):
    push(root, url)
    path = tmp_path / "store" / root.name / LIST
    files = json.loads(path.read_text())["files"]
    path.write_text(json.dumps({"files": {name: file for name, file in files.items() if name != "manifest.json"}}))
    with pytest.raises(RunDirError, match=f"{root.name} is no copy of a run: .* is not a run directory"):
        pull(url, root.name, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_damaged_list_is_mended_by_pushing_again(root, url, tmp_path):
    push(root, url)
    (tmp_path / "store" / root.name / LIST).write_text("{")
    with pytest.raises(RunDirError, match="push the run again"):
        pull(url, root.name, tmp_path / "elsewhere")
    push(root, url)
    assert contents(pull(url, root.name, tmp_path / "elsewhere")) == contents(root)


def test_a_run_that_is_worked_on_is_not_pushed(root, url):
    with RunDir.open(root), pytest.raises(RunDirError, match="held by another edgestill process"):
        push(root, url)


@pytest.mark.parametrize("bad", ["runs", "zip://a::s3://b", "http://host/runs", "simplecache::s3://b/c"])
def test_a_place_that_is_no_store_is_refused(root, bad):
    with pytest.raises(UserError, match="is no store"):
        push(root, bad)
    with pytest.raises(UserError, match="holds a password"):
        push(root, "s3://key:secret@bucket/runs")


def test_a_store_whose_library_is_missing_is_named(root, monkeypatch):
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (_ for _ in ()).throw(ImportError("no s3fs")))
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgestill\[s3\]'"):
        push(root, "s3://bucket/runs")


@pytest.mark.engines
def test_a_run_goes_to_s3_and_back(root, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-Secret_77")
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        push(root, "s3://bucket/runs")
        assert push(root, "s3://bucket/runs")[0] == 0
        assert contents(pull("s3://bucket/runs", root.name, tmp_path / "elsewhere")) == contents(root)
        with pytest.raises(FailedError, match="the store s3://absent/runs failed") as refused:
            push(root, "s3://absent/runs")
        assert "planted-Secret_77" not in str(refused.value)
    finally:
        server.stop()
