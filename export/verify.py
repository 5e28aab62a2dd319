"""Is a bundle what its maker shipped, and does it answer here as it did there?"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.interface import describe_input, describe_output
from export.onnx_gate import check_onnx_bytes
from export.probes import INPUTS, PROBES, TOLERANCE, open_model, read_probes
from export.reading import OpenedBundle, open_bundle
from pipeline.errors import BundleError, ExportError, first_line


class Verdict(NamedTuple):
    problems: tuple[str, ...]  # what differs, a sentence each; empty: nothing
    facts: tuple[str, ...]  # what was checked, a line each


def verify(path: Path, public_key: bytes | None = None, digest: str | None = None) -> Verdict:
    """Re-hash a bundle's folder or zip, check what it says of itself, and rerun its models on the stored probe inputs.

    Nothing of it is run before its files are those of its manifest; `run.py` and `profile.py` are never run.

    Args:
        public_key: PEM; the bundle must be signed by it.
        digest: the bundle must have this one.

    Raises:
        ConfigError: the public key is none.
    """
    try:
        with open_bundle(path, public_key, digest) as opened:
            facts = [*_integrity(opened)]
            problems = list(_inconsistencies(opened))
            if not problems:
                for problem, fact in _rerun(opened):
                    problems += [problem] if problem else []
                    facts += [fact] if fact else []
    except BundleError as error:
        return Verdict(error.problems, ())
    return Verdict(tuple(problems), tuple(facts))


def _integrity(opened: OpenedBundle) -> Iterator[str]:
    size = sum(map(len, opened.files.values()))
    yield f"{len(opened.files)} files, {size:,} bytes, each with the SHA-256 of the manifest"
    yield f"digest {opened.manifest.digest}"
    if opened.signed is None:
        yield "not signed: this finds damage, not somebody who rewrote files and manifest together"
    elif opened.signed.trusted:
        yield f"signed by the key {opened.signed.key}, the one that was given"
    else:
        yield f"signed by the key {opened.signed.key}; whose that is, only --public-key can tell"


def _inconsistencies(opened: OpenedBundle) -> Iterator[str]:
    """Where bundle.json and the model files disagree."""
    bundle = opened.bundle
    described = describe_input(bundle.task, bundle.interface), describe_output(bundle.task, bundle.interface)
    if (bundle.input, bundle.output) != described:
        yield "bundle.json describes inputs or outputs that are not those of its task"
        return
    for name, model in bundle.models.items():
        stem = Path(model.file).stem
        own = [file for file in opened.files if Path(file).stem == stem and file.startswith("model")]
        size = sum(len(opened.files[file]) for file in own)
        if size != model.bytes:
            yield f"bundle.json says that the model {name} has {model.bytes:,} bytes; its files have {size:,}"
        if model.file.endswith(".onnx"):
            yield from _wrong_ends(opened, name)


def _wrong_ends(opened: OpenedBundle, name: str) -> Iterator[str]:
    """Inputs and outputs of an ONNX file that are not those of bundle.json."""
    bundle, model = opened.bundle, opened.bundle.models[name]
    task, graph = bundle.task, check_onnx_bytes(opened.model_bytes(name), model.file).graph
    described = describe_input(task, model.interface), describe_output(task, model.interface)
    wanted = set(described[0].get("names") or [described[0]["name"]])
    held = {value.name for value in graph.initializer}
    given = {value.name for value in graph.input} - held
    if given != wanted:
        yield f"{model.file} takes {', '.join(sorted(given))}; bundle.json says {', '.join(sorted(wanted))}"
    if described[1]["name"] not in (value.name for value in graph.output):
        yield f"{model.file} does not give {described[1]['name']}, as bundle.json says"


def _rerun(opened: OpenedBundle) -> Iterator[tuple[str | None, str | None]]:
    """(problem, fact) of each model on the probe inputs."""
    bundle = opened.bundle
    probes = read_probes(opened.files[PROBES], bundle)
    for model in bundle.models.values():
        try:
            run = open_model(opened.folder, model, opened.trusted)
        except ExportError as error:
            yield (str(error), None) if model.runtime == "onnxruntime" else (None, f"not run here: {error}")
            continue
        try:
            found = np.asarray(run(probes[INPUTS]))
        except Exception as error:  # the runtimes' own kinds, which share no base
            yield f"{model.file} does not run on the probe inputs: {first_line(error)[:200]}", None
            continue
        yield _compared(model.file, model.precision, found, probes[model.format])


def _compared(file: str, precision: str, found: np.ndarray, expected: np.ndarray) -> tuple[str | None, str | None]:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return f"{file} gives logits {list(found.shape)}, not {list(expected.shape)} finite ones", None
    allowed = TOLERANCE.get(precision, max(TOLERANCE.values())) * max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(found - expected).max())
    changed = int((found.argmax(1) != expected.argmax(1)).sum())
    said = f"logits within {worst:.1e} of the stored ones on {len(expected)} probe inputs"
    if worst <= allowed:
        return None, f"{file}: {said}"
    return f"{file}: {said}, and {allowed:.1e} is allowed; {changed} answers changed", None
