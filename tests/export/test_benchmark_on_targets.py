"""One table of every format on every target: a board by SSH beside this machine."""

import json
from pathlib import Path

import numpy as np
import pytest
from loopback import Loopback
from safetensors.numpy import save

from edgestill.export.benchmark import measure
from edgestill.export.targets import remote
from edgestill.flows.cli.main import execute

pytestmark = pytest.mark.engines


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESTILL_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.setattr(remote, "POLL_S", 0.05)
    made = Loopback(tmp_path / "board")
    made.be(ms={"fp32": 8.0, "fp16": 9.0, "int8": 2.0})
    keys = ["--identity", str(made.identity), "--known-hosts", str(made.known_hosts), "--threads", "2"]
    assert execute(["target", "add", "board", f"ssh://tester@127.0.0.1:{made.port}", *keys, "--offline"]) == 0
    yield made
    made.close()


@pytest.fixture
def answers(monkeypatch):
    """Stands in for the processes here: int8 disagrees on one input of four."""

    def run(task, limit_s):
        if task["kind"] == "first":
            return {"first_answer_ms": 50, "memory_bytes": 10**7}
        logits = np.eye(4, dtype=np.float32)
        given = {name: logits if name != "int8" else logits[[0, 1, 2, 0]] for name in task["models"]}
        Path(task["answers"]).write_bytes(save(given))
        return {"samples_ms": {name: [1.0] * 100 for name in given}}

    monkeypatch.setattr(measure, "_run", run)


def test_a_table_has_each_format_on_each_target(board, answers, bundle_of_formats, tmp_path, capsys):
    picture = tmp_path / "both.svg"
    command = [
        "benchmark",
        str(bundle_of_formats.folder),
        "--target",
        "board",
        "--target",
        "here",
        "--duration",
        "0.02",
    ]
    assert execute([*command, "--json", "--plot", str(picture)]) == 0
    there, here = json.loads(capsys.readouterr().out)["targets"]
    assert (there["target"], there["cpu"], there["threads"]) == ("board", "Board 5", 2)
    assert (here["target"], here["threads"]) == ("here", 1)
    rows = {row["format"]: row for row in there["rows"]}
    assert rows["fp32"]["p50_ms"] == 8
    assert rows["fp32"]["first_answer_ms"] is None  # the stand-in tells of no cold start
    assert (rows["int8"]["p50_ms"], rows["int8"]["agreement"]["share"]) == (2, 0.75)
    assert rows["int8"]["over_fp32"]["value"] == pytest.approx(4)
    assert {"ort_int8", "openvino"} & set(rows) == set()
    assert there["left_out"]["ort_int8"].startswith("it runs in")
    assert "board: Board 5" in picture.read_text()
    assert execute(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["target", "format", "runtime"]
    assert [line.split()[0] for line in lines[3:]].count("board") == len(there["rows"])
    assert board.left() == []


def test_an_unknown_target_is_refused_before_the_bundle_is_opened(board, tmp_path, capsys):
    assert execute(["benchmark", str(tmp_path / "none"), "--target", "bord"]) == 2
    assert "did you mean 'board'" in capsys.readouterr().err
