"""`edgestill score`: training-free scores of a list of architectures, as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from edgestill.flows.cache import kept_prepared
from edgestill.pipeline.data.datasets import NpzConfig
from edgestill.pipeline.data.loading import load_whole_train
from edgestill.pipeline.data.splits import draw_batch
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.errors import ArchitectureError, CandidateError, ConfigError, nearest
from edgestill.pipeline.foreign import MAX_TABLE_BYTES, read_text_bounded
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.pipeline.teachers import TeacherConfig, build_teacher
from edgestill.pipeline.teachers.resnet import RESNETS
from edgestill.search.scorers import SCORERS
from edgestill.search.scoring.conditions import Conditions, Means
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.scoring.outcome import Outcome, Scores, value
from edgestill.search.scoring.workshop import Workshop
from edgestill.search.space import Architecture, SearchSpace
from edgestill.search.spaces import named_space


def score_file(
    space_name: str,
    architectures: Path,
    data: Path,
    scorers: Sequence[str],
    out: Path,
    teacher: str,
    batch_size: int,
    seed: int,
    draws: int,
    threads: int,
    say: Callable[[str], None],
) -> int:
    """Score every architecture of a file; return the number of rows written.

    A row's scores depend on the seed and its architecture alone. A cell is empty if its scorer gives no score (a dead
    network, a network that kills its process, widths not comparable by DisWOT's semantic metric); `say` gets the
    reason.

    Raises:
        ConfigError: unknown names and missing paths, all at once; else wrong lines, all at once.
        DataError: the data cannot be used.
    """
    problems = [f"unknown scorer {name!r}; {nearest(name, SCORERS)}" for name in scorers if name not in SCORERS]
    if not scorers:
        problems.append(f"--scorers names none; known: {', '.join(SCORERS)}")
    try:
        space = named_space(space_name)
    except ConfigError as error:
        problems.extend(error.problems)
    if teacher not in RESNETS:
        problems.append(f"unknown teacher {teacher!r}; {nearest(teacher, RESNETS)}")
    if not architectures.is_file():
        problems.append(f"no file of architectures at {architectures}")
    if not out.parent.is_dir():
        problems.append(f"no folder {out.parent} to write {out.name} to")
    if problems:
        raise ConfigError(problems)
    listed = _read(space, architectures)
    select_device(DeviceConfig(accelerator="cpu", threads=threads))
    task, train = load_whole_train(NpzConfig(path=data))
    with drawn_from(seed):
        network = build_teacher(TeacherConfig(architecture=teacher), task)
    with Workshop(1, torch.get_num_threads()) as workshop:
        conditions = Conditions(draw_batch(train, batch_size, seed), network, seed, draws)
        means = Means(CostTable(space, task, apart=workshop.apart), kept_prepared, workshop.each)
        evaluator = Evaluator(space, task, list(dict.fromkeys(scorers)), conditions, means)
        for name, parts in evaluator.missing.items():
            if parts:
                say(f"{name} does without {', '.join(parts)}, which have no score in this space beside this teacher")
        outcomes = workshop.each(evaluator.portable(), [architecture for _, architecture in listed])
        rows = [_row(text, outcome, scorers, say) for (text, _), outcome in zip(listed, outcomes, strict=True)]
    write_atomic(out, _csv(["architecture", *scorers, "seconds"], rows).encode())
    return len(rows)


def _read(space: SearchSpace, path: Path) -> list[tuple[str, Architecture]]:
    """Read an architecture from each line not blank; all wrong lines are reported together."""
    found, problems = [], []
    for number, line in enumerate(read_text_bounded(path, MAX_TABLE_BYTES, _wrong).splitlines(), start=1):
        text = line.strip()
        if not text:
            continue
        try:
            found.append((text, space.read(text)))
        except ArchitectureError as error:
            problems.append(f"{path}, line {number}: {error}")
    if not found and not problems:
        problems.append(f"{path} lists no architecture")
    if problems:
        raise ConfigError(problems)
    return found


def _wrong(problem: str) -> ConfigError:
    return ConfigError([problem])


def _row(text: str, outcome: Outcome, scorers: Sequence[str], say: Callable[[str], None]) -> list[str]:
    try:
        scores: Scores = value(outcome)
    except CandidateError as error:
        say(f"{text}: {error}")
        return [text, *("" for _ in scorers), ""]
    missing = [name for name in scorers if name not in scores.values]
    if missing:
        say(f"{text}: no finite {', '.join(missing)} score")
    cells = [repr(scores.values[name]) if name in scores.values else "" for name in scorers]
    return [text, *cells, f"{scores.seconds:.6f}"]


def _csv(header: list[str], rows: list[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
