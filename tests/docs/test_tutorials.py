"""The tutorials, done as they stand: every file that they give is written, every command run, to the bundle.

`edgestill run` has `--smoke` added, and the newcomer's data are generated; nothing else differs.
"""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blocks import ROOT, blocks_of, commands
from PIL import Image

from edgestill.export.bundle.verify import verify
from edgestill.flows.cli.main import execute

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

COLOURS = {"apple": (190, 40, 40), "leaf": (50, 170, 60), "sky": (60, 90, 210)}
WORDS = {"positive": ("lovely", "moving", "warm"), "negative": ("dull", "empty", "flat")}


def do(tutorial: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Do what a tutorial says, in a folder, and return the bundle that it ends in."""
    monkeypatch.chdir(folder)
    done: list[list[str]] = []
    for block in blocks_of(ROOT / "docs" / "tutorials" / f"{tutorial}.md"):
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        for command in commands(block) if block.language == "sh" else ():
            small = [
                *command,
                *(["--smoke"] if command[:2] == ["edgestill", "run"] and "--smoke" not in command else []),
            ]
            if small not in done:
                run(small)
                done.append(small)
    [bundle] = folder.glob("runs/*/bundle")
    return bundle


def run(command: list[str]) -> None:
    """Run one command; those of edgestill in this process, which has its libraries."""
    if command[0] == "edgestill":
        assert execute(command[1:]) == 0, command
    else:
        assert command[0] == "python"
        subprocess.run([sys.executable, *command[1:]], check=True, timeout=120)


def test_the_digits_end_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    bundle = do("digits", tmp_path, monkeypatch)
    assert verify(bundle).problems == ()
    assert (tmp_path / "digits" / "run.py").is_file()
    assert "00_is_0.png: " in capfd.readouterr().out


def photograph(label: str, n: int, rng: np.random.Generator) -> Image.Image:
    """A shape of the class's colour, by noise and light of its own, so that grey ones keep a hint of it."""
    pixels = np.array(COLOURS[label]) * rng.uniform(0.7, 1.2) + rng.normal(0, 25, (40 - n % 3, 32 + n % 5, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.convert("L") if n % 100 == 50 else image.convert("CMYK") if n == 9 else image


def test_photographs_end_in_a_bundle_at_the_first_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    rng = np.random.default_rng(0)
    for n in range(360):
        label = list(COLOURS)[n % 3]
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        photograph(label, n, rng).save(tmp_path / "photos" / label / f"{n:04}.jpg", quality=90)
    cut = tmp_path / "photos" / "apple" / "0012.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    bundle = do("photographs", tmp_path, monkeypatch)
    assert verify(bundle).problems == ()
    told = capfd.readouterr()
    assert "0012.jpg" in told.out + told.err  # the truncated one is named, and left out
    assert "grey" in told.out + told.err
    with (tmp_path / "answers.csv").open(newline="") as answers:
        assert len(list(csv.reader(answers))) > 100
    assert len((tmp_path / "photos.yaml").read_text().splitlines()) <= 10


def test_sentences_end_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sentence", "label"])
        for n in range(300):
            label = list(WORDS)[n % 2]
            filling = rng.choice(["a", "the", "film", "story", "with", "and", "was"], 6)
            table.writerow([" ".join([*filling, *rng.choice(WORDS[label], 2)]), label])
    bundle = do("sentences", tmp_path, monkeypatch)
    assert verify(bundle).problems == ()
    assert re.search(r"^(negative|positive) [01]\.\d{4}$", capfd.readouterr().out, re.MULTILINE)  # predict's answer
