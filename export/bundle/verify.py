"""Verifies a bundle: its files are as its maker shipped them, and its models answer here as they did there."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgestill.export.bundle.foreign_run import open_foreign, run_bounded
from edgestill.export.bundle.probes import INPUTS, TOLERANCE, read_probes, run_checked, why_not_run
from edgestill.export.bundle.read import OpenedBundle, open_bundle
from edgestill.export.bundle.schema import PROBES, BundleModel
from edgestill.export.device.answers import OTHERWISE
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.interface import MAX_DIFFERENCE
from edgestill.export.onnx.sessions import OUTPUT, PROBABILITIES
from edgestill.pipeline.child import ChildError
from edgestill.pipeline.errors import BundleError, ExportError, told
from edgestill.pipeline.training.calibration import softmax


class Verdict(NamedTuple):
    problems: tuple[str, ...]  # differences, a sentence each
    facts: tuple[str, ...]  # checks that were done, a line each
    summary: str  # of all that, in a few words


def verify(path: Path, public_key: bytes | None = None, digest: str | None = None) -> Verdict:
    """Re-hash a bundle's folder or zip, check its description of itself, and rerun its models on the stored probes.

    Nothing of it is run before its files are found to be those of its manifest; its scripts are never run.

    Args:
        public_key: PEM; the bundle must be signed by it.
        digest: the bundle must have this one.

    Raises:
        ConfigError: `public_key` is no ed25519 public key.
    """
    try:
        with open_bundle(path, public_key, digest) as opened:
            problems, facts = [], [*_integrity(opened)]
            for problem, fact in _rerun(opened):
                problems += [problem] if problem else []
                facts += [fact] if fact else []
    except BundleError as error:
        return Verdict(error.problems, (), _DIFFERS)
    return Verdict(told(problems), told(facts, most=100), _DIFFERS if problems else _vouched_for(opened, digest))


_DIFFERS = "differs from what was shipped"


def _vouched_for(opened: OpenedBundle, digest: str | None) -> str:
    """Summarise a bundle without problems: `as it was shipped` only if a key or digest from elsewhere says so."""
    if opened.trusted or digest is not None:
        return "as it was shipped"
    if opened.signed is None:
        return "undamaged; unsigned, so only --digest can tell whether it is what was shipped"
    return "undamaged; signed, and only --public-key can tell by whom"


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


def _rerun(opened: OpenedBundle) -> Iterator[tuple[str | None, str | None]]:
    """Yield (problem, fact) of each model on the probe inputs."""
    bundle = opened.bundle
    probes = read_probes(opened.files[PROBES], bundle)
    for model in bundle.models.values():
        reason = why_not_run(model, opened.trusted)
        if reason is not None:
            yield None, f"not run here: {model.file}: {reason}"
            continue
        try:
            run = open_foreign(opened, model)
            found = run_checked(run, model, probes[INPUTS], bundle.task.num_classes)
        except ExportError as error:
            yield str(error), None
            continue
        yield _compared(model.file, model.precision, found, probes[model.format])
        if model.interface == "image" and FORMATS[model.format].is_cpu_onnx:
            yield _wrong_probabilities(opened, model, probes[INPUTS]), None


def _wrong_probabilities(opened: OpenedBundle, model: BundleModel, inputs: np.ndarray) -> str | None:
    """Compare an image file's probabilities with the softmax of its logits; return a problem, or None if equal."""
    try:
        found = run_bounded(opened.model_bytes(model.format), inputs, (OUTPUT, PROBABILITIES))
    except ChildError as error:
        return f"{model.file} does not run on its inputs: {error}"
    logits, shares = found[OUTPUT], found[PROBABILITIES]
    if shares.shape != logits.shape:
        return f"{model.file} gives probabilities {list(shares.shape)} beside logits {list(logits.shape)}"
    difference = float(np.abs(shares - softmax(logits)).max())
    if difference <= MAX_DIFFERENCE:  # False for NaN
        return None
    return f"{model.file} gives probabilities that are not the softmax of its logits, by up to {difference:.1e}"


def _compared(file: str, precision: str, found: np.ndarray, expected: np.ndarray) -> tuple[str | None, str | None]:
    allowed = TOLERANCE.get(precision, max(TOLERANCE.values())) * max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(found - expected).max())
    changed = int((found.argmax(1) != expected.argmax(1)).sum())
    said = f"logits within {worst:.1e} of the stored ones on {len(expected)} probe inputs"
    if worst <= allowed:
        return None, f"{file}: {said}"
    why = f"; {OTHERWISE}" if precision == "int8" else ""
    return f"{file}: {said}, and {allowed:.1e} is allowed; {changed} answers changed{why}", None
