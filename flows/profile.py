"""`edgestill profile`: measure a model or a bundle on this machine; the result as JSON, as a page and in words."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgestill.export.benchmark.inputs import load_examples
from edgestill.export.device.answers import int8_note
from edgestill.export.device.document import ProfileDocument
from edgestill.export.device.profile import Model, Settings, profile_files
from edgestill.export.device.text import profile_text
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.job import Sent, Timed, make_job
from edgestill.flows.bundle_path import find_bundle
from edgestill.flows.report.device import render_profile
from edgestill.flows.targets.sending import measured
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs.checkpoint import write_atomic

FP32, TEACHER = "fp32", "teacher"


@dataclass(frozen=True)
class Subject:
    """Models to profile, as checked files."""

    models: dict[str, Model]
    left_out: dict[str, str] = field(default_factory=dict)  # models not measured here -> their runtime
    architecture: str | None = None
    length: int = 0  # of texts, in tokens; of pictures where any size goes in, the sides
    probes: bytes | None = None  # of a bundle, with its INT8 answers
    notes: tuple[str, ...] = ()  # on INT8 computed otherwise here than by the bundle's maker


def profile(
    path: Path, chosen: str | None, against: Path | None, settings: Settings, out: Path, say: Callable[[str], None],
    remeasure: str, target: TargetConfig | None = None,
) -> str:  # fmt: skip
    """Measure, write `out` and the page beside it, and return the text to print.

    Args:
        chosen: of a bundle, a model's name or `all`; None is the bundle's own choice.
        against: an ONNX file or a bundle to compare the models with; it takes turns with them.
        target: the device to measure on; None: this machine.

    Raises:
        TargetError: the device cannot be reached, or cannot measure.
        ConfigError, BundleError: the input cannot be measured.
        ExportError: a model cannot be loaded or run.
    """
    if not out.parent.is_dir():
        raise ConfigError([f"no folder {out.parent} to write {out.name} to"])
    page = out.with_suffix(".html")
    with tempfile.TemporaryDirectory(prefix="edgestill-") as private, contextlib.ExitStack() as stack:
        subject = stack.enter_context(_open(path, chosen, Path(private), "student", settings))
        models, other = dict(subject.models), FP32 if len(subject.models) > 1 and FP32 in subject.models else None
        if against is not None:
            (teacher,) = stack.enter_context(_open(against, None, Path(private), TEACHER, settings)).models.values()
            other = TEACHER
            models[other] = teacher
        for one, runtime in subject.left_out.items():
            say(f"{one} is left out: it runs in {runtime}, which this does not measure")
        settings = settings._replace(length=settings.length or subject.length)
        if target is None:
            found = profile_files(models, other, settings, say, remeasure, subject.architecture)
        else:
            found = _profile_there(target, models, settings, subject, say, remeasure)
        notes = subject.notes if target is None else ()  # the device has its own
        found = found.model_copy(update={"warnings": (*found.warnings, *notes)})
    write_atomic(out, (found.model_dump_json(by_alias=True) + "\n").encode())
    cautions: list[str] = []
    with nicety(f"{page} was not written", cautions):
        write_atomic(page, render_profile(found).encode())
    wrote = f"wrote {out}" if cautions else f"wrote {out} and {page}"
    return "\n".join([text_of(found), *(f"caution: {caution}" for caution in cautions), wrote])


def _profile_there(
    target: TargetConfig, models: dict[str, Model], settings: Settings, subject: Subject, say: Callable[[str], None],
    remeasure: str,
) -> ProfileDocument:  # fmt: skip
    """Measure on a target, by the script that a bundle ships."""
    sent = {
        name: Sent(Path(model.path).read_bytes(), model.facts.get("format", name), model.facts.get("precision", ""))
        for name, model in models.items()
    }
    timed = Timed(settings.threads, settings.batches, settings.duration_s, settings.repeats, settings.length)
    job = make_job(sent, timed, subject.probes, subject.architecture)
    cautions: list[str] = []
    found = measured(job, target, None, say, cautions)
    for caution in cautions:
        say(f"caution: {caution}")
    named = {name: m.model_copy(update={"file": models[name].file}) for name, m in found.models.items()}
    return found.model_copy(update={"models": named, "remeasure": remeasure})


def text_of(found: ProfileDocument) -> str:
    return profile_text(found.model_dump(mode="json", by_alias=True))


def settings_of(
    batch: str, threads: str, cpus: str | None, *, duration_s: float, repeats: int, warmup_s: float,
    examples: Path | None, length: int, spinning: bool, seed: int,
) -> Settings:  # fmt: skip
    """Read the settings from the command line's options.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[str] = []
    if examples is not None:
        problems += _problems_of_examples(examples)
    given = {"--batch": batch, "--threads": threads} | ({} if cpus is None else {"--cpus": cpus})
    found = {option: _counts(text, 0 if option == "--cpus" else 1) for option, text in given.items()}
    for option, numbers in found.items():
        if not numbers:
            problems.append(f"{option} {given[option]}: expected whole numbers with commas between, such as 1,8")
    if hasattr(os, "sched_getaffinity") and set(found.get("--cpus", ())) - os.sched_getaffinity(0):
        problems.append(f"--cpus {cpus}: this process may run on cores {sorted(os.sched_getaffinity(0))} only")
    if problems:
        raise ConfigError(problems)
    where = None if examples is None else str(examples.absolute())
    return Settings(
        found["--batch"], found["--threads"], duration_s, repeats, warmup_s, seed=seed, length=length,
        spinning=spinning, cpus=found.get("--cpus", ()), examples=where,
    )  # fmt: skip


def _counts(text: str, least: int) -> tuple[int, ...]:
    """Parse `1,8` to (1, 8), repeats dropped; empty if malformed."""
    parts = [part.strip() for part in text.split(",")]
    fine = all(part.isascii() and part.isdigit() and least <= int(part[:6]) <= 65_536 for part in parts)
    return tuple(dict.fromkeys(map(int, parts))) if fine else ()


def _problems_of_examples(path: Path) -> list[str]:
    try:
        load_examples(path)
    except ConfigError as error:
        return list(error.problems)
    return []


@contextlib.contextmanager
def _open(path: Path, chosen: str | None, private: Path, name: str, settings: Settings) -> Iterator[Subject]:
    """Open a bundle or one ONNX file as a private copy, so the very bytes that were checked are measured."""
    from edgestill.export.bundle.read import check_onnx, open_bundle
    from edgestill.export.bundle.schema import PROBES
    from edgestill.export.formats import FORMATS

    if path.suffix == ".onnx" and not path.exists():
        raise ConfigError([f"there is no file {path}; name an .onnx file, a bundle or a run"])
    if path.suffix == ".onnx" and path.is_file():
        if chosen is not None:
            raise ConfigError([f"--model {chosen} chooses a model of a bundle, and {path} is a single one"])
        copy = private / f"{name}.onnx"
        copy.write_bytes(check_onnx(path, settings.batches, settings.length or 1))
        yield Subject({name: Model(str(copy), path.name, {})})
        return
    with open_bundle(find_bundle(path)) as opened:
        bundle = opened.bundle
        names = list(bundle.models) if chosen == "all" else [chosen or bundle.default]
        described = {one: opened.model(one) for one in names}
        foreign = {one: model.runtime for one, model in described.items() if not FORMATS[model.format].is_cpu_onnx}
        if len(foreign) == len(names):
            raise ConfigError(
                [f"{one} runs in {runtime}, which this does not measure" for one, runtime in foreign.items()]
            )
        models = {
            one: Model(str(opened.folder / model.file), model.file, _facts(model))
            for one, model in described.items()
            if one not in foreign
        }
        length = bundle.task.inputs.length or max(bundle.input.get("size", [0]))  # as profile_device.py does
        notes = [int8_note({**model.facts, "file": model.file}, opened.folder) for model in models.values()]
        told = tuple(f"{note}." for note in notes if note)
        yield Subject(models, foreign, bundle.architecture, length, opened.files[PROBES], told)


def _facts(model: Any) -> dict[str, str]:
    return {"format": model.format, "precision": model.precision}
