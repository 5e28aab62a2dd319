"""`edgestill score`: scores that depend on the seed and the architecture alone."""

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgestill.flows.score import score_file
from edgestill.search.spaces import Nb201Space, ResNetSpace

ARCHITECTURES = ["1-1-1", "3-1-1", "1-1-3/8-16-64", "1-2-1/8-12-48"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    images = rng.integers(0, 256, (80, 12, 12, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(80) % 10, x_test=images[:20], y_test=np.arange(20) % 10, extra=[1])
    return path


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def score(here, data: Path, lines: list[str], out: Path, *more: str, space: str = "resnet") -> list[dict[str, str]]:
    listed = out.with_suffix(".txt")
    listed.write_text("\n".join(lines) + "\n")
    arguments = ["--space", space, "--architectures", str(listed), "--data", str(data), "--out", str(out)]
    done = here("score", *arguments, "--batch-size", "16", "--threads", "1", "--teacher", "resnet8", *more)
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_do_not_depend_on_order_company_or_which_scorers_are_asked(here, data: Path, tmp_path: Path) -> None:
    scorers = ["diswot", "diswot_semantic", "diswot_relation", "nwot", "params", "flops", "random"]
    every = score(here, data, ARCHITECTURES, tmp_path / "a.csv", "--scorers", ",".join(scorers))
    assert list(every[0]) == ["architecture", *scorers, "seconds"]
    alone = score(here, data, ARCHITECTURES[2:0:-1], tmp_path / "b.csv", "--scorers", ",".join(scorers[::-1]))
    by_name = {row["architecture"]: row for row in every}
    for row in alone:
        assert {name: row[name] for name in scorers} == {name: by_name[row["architecture"]][name] for name in scorers}


def test_the_semantic_score_is_left_out_where_widths_differ(here, data: Path, tmp_path: Path) -> None:
    rows = score(here, data, ARCHITECTURES, tmp_path / "s.csv", "--scorers", "diswot,diswot_semantic,diswot_relation")
    narrow = rows[-1]
    assert narrow["diswot_semantic"] == ""
    assert narrow["diswot"] == narrow["diswot_relation"]
    for row in rows[:-1]:
        total = float(row["diswot_semantic"]) + float(row["diswot_relation"])
        assert float(row["diswot"]) == pytest.approx(total, rel=1e-12)


def test_narrow_students_have_the_same_scores_twice_on_two_threads(here, data: Path, tmp_path: Path) -> None:
    """Of 3 to 15 channels, whose shortcuts of stride 2 are what pipeline/networks/convolution.py is for."""
    lines = [f"1-1-1/{width}-{width + 1}-16" for width in range(3, 16)]
    rows = score(here, data, [*lines, *lines], tmp_path / "twice.csv", "--scorers", "diswot,zico", "--threads", "2")
    for row, again in zip(rows[: len(lines)], rows[len(lines) :], strict=True):
        assert (row["diswot"], row["zico"]) == (again["diswot"], again["zico"])
        assert row["diswot"]
        assert row["zico"]


def test_another_seed_gives_other_scores(here, data: Path, tmp_path: Path) -> None:
    zero = score(here, data, ARCHITECTURES[:1], tmp_path / "z.csv", "--scorers", "diswot")
    one = score(here, data, ARCHITECTURES[:1], tmp_path / "o.csv", "--scorers", "diswot", "--seed", "1")
    assert zero[0]["diswot"] != one[0]["diswot"]


def test_an_architecture_that_kills_its_process_has_an_empty_row(data: Path, tmp_path: Path, monkeypatch) -> None:
    build = ResNetSpace.build

    def planted(self, architecture, task):
        network = build(self, architecture, task)
        if self.format(architecture) == "1-1-1/6-8-64":
            network.trunk = lambda inputs: os.kill(os.getpid(), signal.SIGSEGV)
        return network

    monkeypatch.setattr(ResNetSpace, "build", planted)
    listed, out, said = tmp_path / "a.txt", tmp_path / "a.csv", list[str]()
    listed.write_text("1-1-1/8-8-64\n1-1-1/6-8-64\n1-1-1/8-16-64\n")
    scorers, threads = ["nwot", "params"], torch.get_num_threads()
    assert score_file("resnet", listed, data, scorers, out, "resnet20", 16, 0, 1, 1, said.append) == 3
    assert torch.get_num_threads() == threads == 1
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["nwot"] and row["params"]) for row in rows] == [True, False, True]
    assert said == ["1-1-1/6-8-64: its process was killed by SIGSEGV"]


def test_nb201_takes_the_benchmarks_own_strings(here, data: Path, tmp_path: Path) -> None:
    text = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    assert Nb201Space().format(Nb201Space().parse(text)) == text
    (row,) = score(here, data, [text], tmp_path / "n.csv", "--scorers", "diswot,params", space="nb201")
    assert row["architecture"] == text
    assert float(row["diswot"]) < 0


def test_all_wrong_lines_are_reported_together_and_nothing_is_written(here, data: Path, tmp_path: Path) -> None:
    listed = tmp_path / "wrong.txt"
    listed.write_text("1-1-1\n1-1\n\n0-1-1\n")
    out = tmp_path / "scores.csv"
    failed = here("score", "--space", "resnet", "--architectures", str(listed), "--data", str(data), "--out", str(out))
    assert failed.returncode == 2
    assert "line 2" in failed.stderr
    assert "line 4" in failed.stderr
    assert not out.exists()


def test_unknown_names_are_reported_together(here, tmp_path: Path) -> None:
    failed = here(
        "score", "--space", "nb202", "--architectures", "none.txt", "--data", "x.npz", "--out", str(tmp_path / "o.csv"),
        "--scorers", "diswat", "--teacher", "resnet55",
    )  # fmt: skip
    assert failed.returncode == 2
    for name in ("'nb201'", "'diswot'", "'resnet56'", "no file of architectures"):
        assert name in failed.stderr
