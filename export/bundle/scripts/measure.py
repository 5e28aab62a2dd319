"""Measures the models beside this file on this device. Needs numpy and onnxruntime, nothing else.

    python profile_device.py [--model NAME|all] [--batch 1,8] [--threads 1,2] [--duration 10] [--out FILE.json]

With --other-runtimes it also measures models of OpenVINO and LiteRT, which need `openvino` or `ai-edge-litert`.

Each row of the table is timed in fresh processes, with warm-up, and models take turns. The JSON holds every sample;
`edgestill calibrate --from-csv` and `edgestill report` read it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgestill.export.device.answers import int8_note
from edgestill.export.device.measure import MeasureError, Model, Settings, measure
from edgestill.export.device.runtimes import RUNTIMES, open_other, runtime_of
from edgestill.export.device.text import profile_text, without_controls
from edgestill.export.device.worker import answer_task

_FP32, _FACTS = "fp32", ("format", "precision")
HERE = Path(__file__).resolve().parent if "__file__" in globals() else Path()


def main(arguments: list[str]) -> int:
    if arguments == ["--worker"]:
        return answer_task()
    given = _parse(arguments)
    card = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    known = _models(card, given.other_runtimes)
    default = card.get("default", next(iter(known)))
    names = list(known) if given.model == "all" else [given.model or default]
    if names[0] not in known:
        _say(f"no model {names[0]!r} to run by onnxruntime here; there are {', '.join(known)}")
        return 2
    settings = Settings(
        given.batch, given.threads, given.duration, given.repeats, length=given.length or _length(card),
        examples=given.inputs, seed=given.seed,
    )  # fmt: skip
    again = " ".join(["python", Path(__file__).name, *arguments])
    chosen = {name: known[name] for name in names}
    against = _FP32 if len(names) > 1 and _FP32 in names else None
    worker = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    try:
        found = measure(chosen, against, settings, worker, _say, again, card.get("architecture"))
        notes = [_note(model) for model in chosen.values()]
        found["warnings"] += [f"{note}." for note in notes if note]
    except (MeasureError, OSError, ValueError) as error:
        _say(f"error: {error}")
        return 1
    print(profile_text(found))
    out = Path(given.out) if given.out else (HERE.parent if Path.cwd() == HERE else Path()) / "profile.json"
    out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"wrote {out}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="profile_device.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="a model's name in bundle.json, or all; default: the bundle's own choice")
    parser.add_argument("--batch", type=_counts, default=(1,), metavar="1,8")
    parser.add_argument("--threads", type=_counts, default=(1,), metavar="1,2")
    parser.add_argument("--duration", type=_positive, default=10.0, help="seconds of calls a model and row")
    parser.add_argument("--repeats", type=_count, default=3, help="fresh processes")
    parser.add_argument("--inputs", metavar="FILE.npy", help="real examples; default: random ones")
    parser.add_argument("--length", type=_count, help="of texts, in tokens; default: the longest that it takes")
    parser.add_argument("--other-runtimes", action="store_true", help="models of OpenVINO and LiteRT are measured too")
    parser.add_argument("--seed", type=int, default=0, help="draws the random examples")
    parser.add_argument("--out", help="default: profile.json here, but never among the bundle's own files")
    return parser.parse_args(arguments)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _count(text: str) -> int:
    if not (text.strip().isdecimal() and int(text[:9]) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, above 0 and at most 86400")
    return value


def _models(card: dict[str, Any], others: bool) -> dict[str, Model]:
    """Return the bundle's models by name: those for onnxruntime, and for other runtimes if they are asked for."""
    listed = card.get("models") or {"fp32": {"file": "model.onnx", "format": "fp32", "precision": "fp32"}}
    runtimes = [*RUNTIMES.values()] if others else ["onnxruntime"]
    return {
        name: Model(str(HERE / model["file"]), model["file"], {k: model[k] for k in _FACTS if k in model})
        for name, model in listed.items()
        if model.get("runtime", "onnxruntime") == RUNTIMES.get(Path(model["file"]).suffix)
        and model.get("runtime", "onnxruntime") in runtimes
    }


def _note(model: Model) -> str:
    other = model.facts.get("precision") == "int8" and runtime_of(model.path) != "onnxruntime"
    return int8_note({**model.facts, "file": model.file}, HERE, open_other(model.path, 1) if other else None)


def _length(card: dict[str, Any]) -> int:
    """Return the longest text in tokens, or the longer side of the picture that a model of any size works with."""
    given = card.get("input", {})
    return int(given.get("max_length", 0) or max(given.get("size", [0])))


def _say(line: str) -> None:
    print(without_controls(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
