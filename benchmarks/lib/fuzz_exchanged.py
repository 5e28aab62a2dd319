"""What fuzz.py mutates of files that devices, stores, federations and people give a run, and who reads it."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch

from lib.fuzz_mutate import mutate
from lib.fuzz_targets import Outcome, Seeds, Target, call, command

PROMPTS = [{"prompt": f"{n}?", "response": f"{n}!", "worse": "no", "topic": "ab"[n % 2]} for n in range(80)]
TARGETS = "pi: {where: ssh://pi@raspberry.local, threads: 2, max_celsius: 70}\ndesk: {where: here, formats: [fp32]}\n"
FACTS = """root=/home/pi/.edgestill-target
machine=aarch64
system=Linux
cores=4
device=Raspberry Pi 5
governor=ondemand
celsius=41000
throttled=throttled=0x50000
df=/dev/root 30000000 9000000 20000000 31% /
interpreter=python3
python=3.11.2
numpy=2.1.0
onnxruntime=1.20.0
"""


def prompts(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """Prompts with answers for a language model."""
    from edgestill.pipeline.data.datasets.language import PromptsConfig
    from edgestill.pipeline.data.loading import load_splits

    path = place / "talk.jsonl"
    path.write_bytes(mutate(path.name, "\n".join(map(json.dumps, PROMPTS)).encode(), rng))
    keys = {"rejected_key": "worse", "domain_key": "topic"} if rng.random() < 0.5 else {}
    return call(lambda: load_splits(PromptsConfig(path=path, **keys), 0))


def target_book(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """The person's list of targets, as an editor or a disk left it."""
    from edgestill.export.targets.book import book_path, read_book

    path = book_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutate(path.name, TARGETS.encode(), rng))
    shutil.copy(path, place)
    return call(read_book)


def device_facts(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """What a device says of itself."""
    from edgestill.export.targets.config import TargetConfig
    from edgestill.export.targets.connection import Connection, Ran
    from edgestill.export.targets.probe import ask, missing, unfit
    from edgestill.flows.targets.check import facts_of, throttling

    said = mutate("said.txt", FACTS.encode(), rng)
    (place / "said.txt").write_bytes(said)

    class Said(Connection):
        def run(self, command: str, seconds: float = 0, stdin: bytes = b"") -> Ran:
            return Ran(0, said, b"")

        def close(self) -> None:
            pass

    def look() -> None:
        target = TargetConfig(name="pi")
        facts = ask(Said(), target)
        lines = [*facts_of(facts, target), *missing(facts, target, 20), *unfit(facts, target), *throttling(facts)]
        assert all(line.isprintable() for line in lines), lines

    return call(look)


def federated_answers(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """Answers of a federation to its pool."""
    from edgestill.distill.federation.answers_file import answers_bytes, read_answers
    from edgestill.distill.federation.strategies.base import Answers
    from edgestill.pipeline.data.datasets import NpzConfig
    from edgestill.pipeline.data.loading import load_splits
    from edgestill.pipeline.data.teacher_cache import split_digest

    pool = load_splits(NpzConfig(path=seeds.folder / "images.npz"), 0).train
    path, index = place / "answers.npz", torch.arange(min(6, len(pool)))
    valid = answers_bytes(Answers(index, torch.ones(len(index), 3)), split_digest(pool))
    path.write_bytes(mutate(path.name, valid, rng))
    return call(lambda: pool.batch(read_answers(path, pool, 3).index))


def teacher_answers(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """A file of answers in a teacher's place."""
    from edgestill.pipeline.task import Task
    from edgestill.pipeline.teachers.outputs import OutputsConfig, OutputsTeacher

    if rng.random() < 0.5:
        path = place / "answers.npz"
        np.savez(path, ids=np.array(["train/0", "train/1"]), logits=np.eye(2, 3), labels=np.array(["a", "b", "c"]))
    else:
        path = place / "answers.csv"
        path.write_text("id,a,b,c\ntrain/0,1,0,0\ntrain/1,0,0.5,0.5\n")
    path.write_bytes(mutate(path.name, path.read_bytes(), rng))
    task = Task(input_shape=(1, 8, 8), labels=("a", "b", "c"), mean=(0.5,), std=(0.5,))
    return call(lambda: OutputsTeacher(OutputsConfig(file=path)).build(task))


def stored_run(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """A copy of a run in a store, and its list of files."""
    copy, store = place / "store" / "run", place / "store"
    shutil.copytree(seeds.image_run, place / "runs" / "run")
    pushed = command("store", "push", place / "runs" / "run", f"file://{store}")
    assert pushed.code == 0, pushed.said
    changed = copy / ".copy.json"
    if rng.random() < 0.3:
        changed = rng.choice([path for path in sorted(copy.rglob("*")) if path.is_file()])
    changed.write_bytes(
        mutate("copy.json" if changed.name == ".copy.json" else changed.name, changed.read_bytes(), rng)
    )
    found = command("store", "pull", f"file://{store}", "run", "--out", place / "pulled")
    outside = {path.name for path in place.iterdir()} - {"store", "runs", "pulled"}
    assert not outside, outside
    return found


def inputs(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """Inputs that a benchmark's formats answer."""
    from edgestill.export.benchmark.inputs import load_examples

    path = place / "inputs.npy"
    np.save(path, np.zeros((4, 1, 8, 8), np.float32))
    path.write_bytes(mutate(path.name, path.read_bytes(), rng))
    return call(lambda: load_examples(path).sum())


EXCHANGED: dict[str, Target] = {
    target.__name__: target
    for target in (
        prompts, target_book, device_facts, federated_answers, teacher_answers, stored_run, inputs,
    )
}  # fmt: skip
