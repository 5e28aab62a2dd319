"""Data sets by their id, from a hub that this test serves: which revision is read, and that none of its code is."""

import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pyarrow
import pytest
from pyarrow import parquet

ID, COMMIT, NEWEST, SCRIPTED = "someone/reviews", "a" * 40, "b" * 40, "c" * 40
PLANTED = b"import os; os._exit(77)\n"
CODE = """
import json, os
from edgestill.pipeline.data.datasets.huggingface import HuggingFaceConfig, load_huggingface
raw = load_huggingface(HuggingFaceConfig(**json.loads(os.environ["ASKED"])))
print(json.dumps([raw.labels, raw.train.texts[:2], len(raw.test.texts)]))
"""


def rows(word, count=40):
    table = pyarrow.table({"review": [f"{word} {n}" for n in range(count)], "label": [n % 2 for n in range(count)]})
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


FILES = {
    commit: {
        "README.md": b"---\nlicense: mit\n---\n",
        "planted.py": PLANTED,
        "data/train-00000-of-00001.parquet": rows(word),
        "data/test-00000-of-00001.parquet": rows(word, 10),
    }
    for commit, word in ((COMMIT, "old"), (NEWEST, "new"))
} | {SCRIPTED: {"README.md": b"", "reviews.py": PLANTED}}


class Hub(BaseHTTPRequestHandler):
    """The calls of the hub's API that `datasets` makes to read a repository of files."""

    asked: list[str] = []

    def do_GET(self):
        path = urlsplit(self.path).path.strip("/").split("/")
        self.asked.append(self.path)
        if path[:4] == ["api", "datasets", *ID.split("/")]:
            self._api(path[4:], {})
        elif path[:4] == ["datasets", *ID.split("/"), "resolve"] and "/".join(path[5:]) in FILES[commit_of(path[4])]:
            commit = commit_of(path[4])
            data = FILES[commit]["/".join(path[5:])]
            self._send(data, {"ETag": f'"{hash(data) & 0xFFFFFFFF:040x}"', "X-Repo-Commit": commit})
        else:
            self._send(b"{}", {"X-Error-Code": "EntryNotFound"}, 404)

    do_HEAD = do_GET

    def do_POST(self):
        path = urlsplit(self.path).path.strip("/").split("/")
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._api(path[4:], json.loads(body) if body.startswith("{") else parse_qs(body))

    def _api(self, path, body):
        commit = commit_of(path[1] if len(path) > 1 else "main")
        if path[:1] in ([], ["revision"]):
            siblings = [{"rfilename": name} for name in FILES[commit]]
            self._send_json({"id": ID, "sha": commit, "private": False, "tags": [], "siblings": siblings})
        elif path[0] == "tree":
            self._send_json([entry for entry in entries(commit) if within(entry["path"], "/".join(path[2:]))])
        elif path[0] == "paths-info":
            self._send_json([entry for entry in entries(commit) if entry["path"] in body["paths"]])
        else:
            self._send(b"{}", {}, 404)

    def _send_json(self, value):
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, data, headers, status=200):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def commit_of(revision):
    return {"main": NEWEST, "v1": COMMIT, "scripted": SCRIPTED}.get(revision, revision)


def entries(commit):
    folder = {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}
    return [
        folder,
        *(
            {"type": "file", "path": name, "oid": f"{n:040x}", "size": len(data)}
            for n, (name, data) in enumerate(FILES[commit].items())
        ),
    ]


def within(path, folder):
    return path.startswith(f"{folder}/") if folder else True


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def loaded(hub, tmp_path, revision):
    """Load the data set in a process of its own, which knows this hub alone."""
    asked = {"path": ID, "revision": revision, "text_column": "review"}
    environment = {
        "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "EDGESTILL_CACHE": str(tmp_path / "own"),
        "ASKED": json.dumps(asked),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    Hub.asked.clear()
    return subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | environment, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(("revision", "word"), [("v1", "old"), (None, "new")])
def test_an_id_is_read_at_its_revision_and_its_code_is_not_fetched(revision, word, hub, tmp_path):
    done = loaded(hub, tmp_path, revision)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["0", "1"], [f"{word} 0", f"{word} 1"], 10]
    assert any("resolve" in call for call in Hub.asked)
    assert not [call for call in Hub.asked if call.endswith("planted.py")]


def test_an_id_that_is_a_script_is_refused_in_a_sentence_and_not_run(hub, tmp_path):
    done = loaded(hub, tmp_path, "scripted")
    assert done.returncode == 1
    assert "DataError: someone/reviews is no folder here, and cannot be loaded as a data set" in done.stderr
    assert "scripts are no longer supported" in done.stderr
