"""Does a change leave results as they were, to the last byte? Digests of small runs of one thread and fixed seeds.

    python benchmarks/same_bytes.py --out before.json
    python benchmarks/same_bytes.py --against before.json

Run the first line before a change and the second after it, on one machine. Each run goes through `edgestill run`:
images with every stage and three methods, images by evolution and DisWOT's rank sum, and text. A digest stands for the
search's journal without its seconds, for each tensor file without its container, and for each ONNX file and the
search's result as they are. Kept results of earlier runs are not used.
Nothing that was measured on the clock is compared. Exit code 1: something differs, or a file is missing.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

_COMMON = (
    "device.threads=1",
    "search.workers=1",
    "search.draws=1",
    "teacher.training.epochs=3",
    "distill.training.epochs=3",
    "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70",
    "baselines.enabled=false",  # the clock decides how many there are
)
_IMAGES = (
    *_COMMON,
    "teacher.architecture=resnet8",
    "search.space.widths=[[6,8],[8,12],[12,16]]",
    "search.space.blocks=[[1,2],[1,2],[1]]",
)
RUNS: dict[str, tuple[str, ...]] = {
    "every stage": (
        *_IMAGES,
        "search.budget.max_params=26000",
        "search.evaluations=12",
        "search.shortlist=2",
        "search.tournament.epochs=1",
        "rank_check.students=4",
        "rank_check.epochs=1",
        "tune.trials=3",
        "tune.epochs=2",
        "distill.methods=[{name: hard, warmup_steps: 1, every: 4, images: 4}, {name: lelp, subclasses: 2}, "
        "{name: kd_aif, warmup_epochs: 1}]",
        "prune.method=taylor",
        "prune.epochs=2",
        "prune.rounds=2",
        "prune.round_epochs=1",
        "qat.mode=always",
        "qat.epochs=1",
    ),
    "evolution": (
        *_IMAGES,
        "search.strategy={name: evolution, population: 4, parents: 2, offspring: 3}",
        "search.evaluations=10",
        "search.scorer=diswot",
        "search.combine=rank_sum",
        "search.teacher_weights=trained",
        "search.shortlist=0",
        "tune.enabled=false",
        "distill.methods=[rkd]",
    ),
    "text": (
        *_COMMON,
        "search.evaluations=3",
        "search.shortlist=0",
        "tune.enabled=false",
        "teacher.architecture=text_transformer_2x128",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the file that the digests are written to")
    parser.add_argument("--against", type=Path, help="digests of an earlier state, which these must equal")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    arguments = parser.parse_args()
    found = {name: digests(name) for name in arguments.runs}
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if not arguments.against:
        print(json.dumps(found, indent=1))
        return 0
    before = json.loads(arguments.against.read_text(encoding="utf-8"))
    differing = list(_differing({name: before[name] for name in arguments.runs}, found))
    print("\n".join(differing) or f"the same bytes in {sum(map(len, found.values()))} files")
    return int(bool(differing))


def digests(name: str) -> dict[str, str]:
    """File in the run -> digest of what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        below = Path(folder)
        settings = [part for setting in (*RUNS[name], *_data(name, below)) for part in ("--set", setting)]
        preset = "sst2" if name == "text" else "digits"
        edgestill = (sys.executable, "-P", "-m", "edgestill")  # of this checkout, if PYTHONPATH names it
        command = [*edgestill, "run", "--preset", preset, *settings, "--out", str(below / "runs"), "--quiet"]
        environment = os.environ | {"EDGESTILL_CACHE": str(below / "cache")}  # nothing kept from before a change
        done = subprocess.run(command, cwd=below, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        (run,) = (below / "runs").iterdir()
        return dict(_digests(run))


def _data(name: str, folder: Path) -> Iterator[str]:
    if name == "text":
        lines = [f"{'lovely' if n % 2 else 'dull'} story {n % 7} of a day {n}\t{n % 2}" for n in range(240)]
        (folder / "texts.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
        yield from (f"data.path={folder}", "data.train=texts.tsv", "data.validation=null", "data.test=null")


def _digests(run: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(run.glob("*/*")):
        if path.parent.name == "bundle":  # holds the answers of the format that was fastest on the clock
            continue
        if path.name == "history.jsonl":
            yield f"{path.parent.name}/{path.name}", _digest(_journal(path))
        elif path.suffix == ".safetensors":
            tensors = load_file(path)
            yield (
                f"{path.parent.name}/{path.name}",
                _digest([(n, t.tobytes().hex()) for n, t in sorted(tensors.items())]),
            )
        elif path.suffix == ".pt":
            yield f"{path.parent.name}/{path.name}", _digest(_plain(torch.load(path, weights_only=True)))
        elif path.suffix == ".onnx" or (path.parent.name, path.name) == ("search", "result.json"):
            yield f"{path.parent.name}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()


def _journal(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if name not in ("seconds", "seal")} for line in lines]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.contiguous().numpy().tobytes().hex()]
    if isinstance(value, dict):
        return [[str(name), _plain(part)] for name, part in value.items()]
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else repr(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _differing(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> Iterator[str]:
    for name in after:
        for file in sorted({*before[name], *after[name]}):
            was, now = before[name].get(file, "missing"), after[name].get(file, "missing")
            if was != now:
                yield f"{name}: {file}: {was[:12]} before, {now[:12]} now"


if __name__ == "__main__":
    raise SystemExit(main())
