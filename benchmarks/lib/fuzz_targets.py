"""What fuzz.py mutates and who reads it: each kind of foreign file, through the door that a person would use."""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE, manifest_bytes
from edgestill.flows.cli.failures import guarded
from edgestill.flows.cli.main import execute
from lib.fuzz_mutate import mutate


class Outcome(NamedTuple):
    code: int  # of the command: 0 taken, 1 differs or failed, 2 refused
    said: str


class Seeds(NamedTuple):
    """Valid files to begin with, in a folder of this process."""

    folder: Path
    image_run: Path
    text_run: Path


Target = Callable[[Seeds, Path, random.Random], Outcome]


def command(*arguments: object) -> Outcome:
    """Exit code of a command of edgestill in this process, and all that it printed."""
    return _heard(lambda: execute([str(argument) for argument in arguments]))


def call(read: Callable[[], object]) -> Outcome:
    """Read a file by a function, with a command's treatment of errors."""

    def work() -> None:
        read()

    return _heard(lambda: guarded(work, debug=False))


def _heard(work: Callable[[], int]) -> Outcome:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = work()
    return Outcome(code, out.getvalue())


def bundle(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    """Any file of a bundle; the manifest fits it again, mostly."""
    folder = _bundle(seeds, place, rng, None)
    return (
        command("verify", folder) if rng.random() < 0.7 else command("bundle", "export", folder, "--out", place / "o")
    )


def model(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    folder = _bundle(seeds, place, rng, "model.onnx")
    if rng.random() < 0.05:
        quick = ("--duration", 0.01, "--repeats", 1, "--warmup", 0, "--out", place / "p.json")
        return command("profile", folder / "model.onnx", *quick)
    return command("verify", folder)


def tokenizer(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    folder = _bundle(seeds, place, rng, "tokenizer.json")
    texts = rng.choice([["a lovely day"], ["x" * 10**5], ["\0", "ﷺ" * 500], ["a" * 50 + "!"]])
    return command("predict", folder, *texts)


def manifest(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    folder = place / "bundle"
    shutil.copytree(seeds.image_run / "bundle", folder)
    _mutated(folder / MANIFEST, rng)
    return command("verify", folder)


def image(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    path = shutil.copy(rng.choice(sorted((seeds.folder / "images").iterdir())), place)
    _mutated(Path(path), rng)
    return command("predict", seeds.image_run / "bundle", path)


def profile(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.export.device.document import read_profile

    path = Path(shutil.copy(seeds.folder / "profile.json", place))
    _mutated(path, rng)
    return call(lambda: read_profile(path))


def configuration(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.flows.config import load_config

    path = Path(shutil.copy(rng.choice([seeds.image_run, seeds.text_run]) / "config.yaml", place))
    _mutated(path, rng)
    return call(lambda: load_config(path))


def images_data(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.pipeline.data.datasets import NpzConfig
    from edgestill.pipeline.data.loading import load_splits

    path = Path(shutil.copy(seeds.folder / "images.npz", place))
    _mutated(path, rng)
    return call(lambda: load_splits(NpzConfig(path=path), 0))


def table(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.pipeline.data.datasets import TextConfig
    from edgestill.pipeline.data.loading import load_splits

    path = Path(shutil.copy(seeds.folder / "texts.csv", place))
    _mutated(path, rng)
    return call(lambda: load_splits(TextConfig(path=path), 0))


def records(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.pipeline.data.datasets import TextConfig
    from edgestill.pipeline.data.loading import load_splits

    path = Path(shutil.copy(seeds.folder / rng.choice(["texts.parquet", "texts.jsonl"]), place))
    _mutated(path, rng)
    return call(lambda: load_splits(TextConfig(path=path), 0))


def run_folder(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    folder = place / "runs" / "run"
    shutil.copytree(seeds.image_run, folder)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".yaml", ".jsonl", ".csv")]
    changed = rng.choice([folder / "manifest.json", folder / "config.yaml", rng.choice(files)])
    _mutated(changed, rng)
    if rng.random() < 0.7 and changed.name != "manifest.json":  # by somebody who knows the format
        import hashlib

        record = json.loads((folder / "manifest.json").read_text())
        for stage in record["stages"].values():
            if (name := str(changed.relative_to(folder))) in stage["files"]:
                stage["files"][name] = hashlib.sha256(changed.read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(record))
    return command(
        *rng.choice([("show", folder), ("show", folder), ("runs", "--out", folder.parent), ("report", folder)])
    )


def weights(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.pipeline.runs.checkpoint import read_metadata, read_weights

    path = Path(shutil.copy(rng.choice(sorted((seeds.folder / "weights").iterdir())), place))
    _mutated(path, rng)
    return call(lambda: (read_metadata(path), read_weights(path)))


def latencies(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    from edgestill.search.latency.model import read_latency_model

    if rng.random() < 0.5:
        path = Path(shutil.copy(seeds.folder / "device.json", place))
        _mutated(path, rng)
        return call(lambda: read_latency_model(path))
    path = Path(shutil.copy(seeds.folder / "latencies.csv", place))
    _mutated(path, rng)
    return command(
        "calibrate",
        "--space",
        "nb201",
        "--set",
        "channels=2",
        "--set",
        "cells=1",
        "--out",
        place / "o.json",
        "--from-csv",
        path,
    )


def architectures(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    path = Path(shutil.copy(seeds.folder / "architectures.txt", place))
    _mutated(path, rng)
    given = ("--space", "nb201", "--architectures", path, "--data", seeds.folder / "images.npz", "--scorers", "params")
    return command("score", *given, "--out", place / "o.csv", "--teacher", "resnet20", "--batch-size", 4)


def key(seeds: Seeds, place: Path, rng: random.Random) -> Outcome:
    path = Path(shutil.copy(seeds.folder / "key.pub.pem", place))
    _mutated(path, rng)
    return command("verify", seeds.folder / "signed", "--public-key", path)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        bundle, model, tokenizer, manifest, image, profile, configuration, images_data, table, records, run_folder,
        weights, latencies, architectures, key,
    )
}  # fmt: skip


def _bundle(seeds: Seeds, place: Path, rng: random.Random, file: str | None) -> Path:
    run = seeds.text_run if file == "tokenizer.json" or (file is None and rng.random() < 0.3) else seeds.image_run
    folder = place / "bundle"
    shutil.copytree(run / "bundle", folder)
    changed = folder / (file or rng.choice(sorted(path.name for path in folder.iterdir())))
    _mutated(changed, rng)
    if rng.random() < 0.9:
        _fit(folder)
    return folder


def _fit(folder: Path) -> None:
    """The card's bytes of the model, and the manifest, as somebody who knows the format would make them."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        card = json.loads((folder / "bundle.json").read_text())
        card["task"].pop("tokenizer_sha256", None)
        card["models"]["fp32"]["bytes"] = (folder / "model.onnx").stat().st_size
        (folder / "bundle.json").write_text(json.dumps(card))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (MANIFEST, SIGNATURE)}
    (folder / MANIFEST).write_bytes(manifest_bytes(files))


def _mutated(path: Path, rng: random.Random) -> None:
    path.write_bytes(mutate(path.name, path.read_bytes(), rng))


def make_seeds(folder: Path, image_run: Path, text_run: Path) -> Seeds:
    """Small valid files of every kind that the two finished runs do not have."""
    import datasets
    import torch
    from PIL import Image
    from safetensors.numpy import save_file

    from edgestill.export.bundle.sign import make_keys, sign_manifest

    seeds = Seeds(folder, image_run, text_run)
    rng = np.random.default_rng(0)
    for name in ("images", "weights"):
        (folder / name).mkdir(parents=True)
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tiff", "a.webp", "a.ppm"):
        Image.fromarray(pixels).save(folder / "images" / name)
    np.save(folder / "images" / "a.npy", pixels)
    parts = {f"{key}_{part}": made for part in ("train", "test") for key, made in
             (("x", rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)), ("y", np.arange(60) % 3))}  # fmt: skip
    np.savez(folder / "images.npz", **parts)
    lines = [f"word {n % 7} {'good' if n % 2 else 'bad'} {n},{'pos' if n % 2 else 'neg'}" for n in range(80)]
    (folder / "texts.csv").write_text("sentence,label\n" + "\n".join(lines) + "\n")
    said = {"sentence": [f"word {n % 7} number {n}" for n in range(80)], "label": [n % 2 for n in range(80)]}
    datasets.Dataset.from_dict(said).to_parquet(str(folder / "texts.parquet"))
    datasets.Dataset.from_dict(said).to_json(str(folder / "texts.jsonl"))
    save_file(
        {"a": pixels, "b": np.ones((3, 2), np.float32)}, folder / "weights" / "a.safetensors", {"edgestill": "{}"}
    )
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, folder / "weights" / "a.pth")
    cells = [f"|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|{op}~2|" for op in ("none", "skip_connect")]
    (folder / "architectures.txt").write_text("\n".join(cells) + "\n")
    private, public = make_keys()
    (folder / "key.pub.pem").write_bytes(public)
    shutil.copytree(image_run / "bundle", folder / "signed")
    (folder / "signed" / SIGNATURE).write_bytes(sign_manifest((folder / "signed" / MANIFEST).read_bytes(), private)[0])
    quick = ("--duration", 0.02, "--repeats", 1, "--warmup", 0, "--out", folder / "profile.json")
    found = command("profile", image_run / "bundle", *quick)
    assert found.code == 0, found.said
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    rows = [
        f"|{a}~0|+|{b}~0|none~1|+|none~0|none~1|{a}~2|,{1 + n / 9:.3f}"
        for n, (a, b) in enumerate((a, b) for a in ops for b in ops)
    ]
    (folder / "latencies.csv").write_text("architecture,latency_ms\n" + "\n".join(rows) + "\n")
    space = ("--space", "nb201", "--set", "channels=2", "--set", "cells=1")
    found = command("calibrate", *space, "--out", folder / "device.json", "--from-csv", folder / "latencies.csv")
    assert found.code == 0, found.said
    return seeds
