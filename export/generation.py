"""Greedy continuation of prompts by networks and files, with and without a cache: exact match, parity and speed."""

# N prompts, T tokens, V token ids

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from edgestill.export.onnx.sessions import MASK, OUTPUT, TOKENS, empty_past, open_session
from edgestill.export.result import Speed
from edgestill.export.run import Run
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.frozen import Count, Frozen, Share
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, PAST, PRESENT, START
from edgestill.pipeline.timing.timing import MedianTimingConfig, time_interleaved

MOST_ASKED = 500  # prompts that are continued for an exact match
PARITY_PROMPTS = 100
_SHOWN = 8
_TIE = 1e-4  # of the largest logit, between the two best tokens: rounding may choose either

Ids = list[int]


class Question(NamedTuple):
    prompt: Ids  # START at its end
    answer: Ids  # END at its end


class Sample(Frozen):
    """A prompt with its right answer, and what each model goes on with, as text."""

    prompt: str
    answer: str
    teacher: str
    before: str  # the student with its first weights
    shipped: str


class Generated(Frozen):
    """Shares of the test prompts that greedy continuation answers exactly."""

    n: Count
    teacher: Share
    student: Share
    shipped: Share  # by the default file
    same_as_teacher: Share | None = None  # of the shipped file's answers, right or wrong; None in an older run
    same_mistakes: Share | None = None  # of them where the teacher is wrong; None: it is nowhere
    samples: tuple[Sample, ...]


def questions(texts: Tensor, most: int = MOST_ASKED) -> list[Question]:
    """Split texts [N, T] into prompts and answers; those without a prompt or an end are left out."""
    found = (_question([int(i) for i in row if i != PADDING]) for row in texts)
    return [question for question in found if question is not None][:most]


def _question(ids: Ids) -> Question | None:
    if START not in ids[1:] or ids[-1] != END:
        return None
    at = ids.index(START) + 1
    return Question(ids[:at], ids[at:])


def greedy(run: Run, prompts: Sequence[Ids], length: int) -> list[Ids]:
    """Continue prompts by the most likely token until END, or until a text has `length` tokens.

    Each step runs the whole texts again, so that any network or file can be asked.
    """
    ids = np.full((len(prompts), length), PADDING, np.int64)
    ends = np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    going = ends < length
    while going.any():
        rows = np.flatnonzero(going)
        chosen = run(np.ascontiguousarray(ids[rows, : ends[rows].max()])).argmax(1)
        ids[rows, ends[rows]] = chosen
        ends[rows] += 1
        going[rows] = (chosen != END) & (chosen != PADDING) & (ends[rows] < length)
    return [row[len(prompt) : end].tolist() for row, prompt, end in zip(ids, prompts, ends, strict=True)]


def _table(rows: Sequence[Ids], length: int) -> np.ndarray:
    table = np.full((len(rows), length), PADDING, np.int64)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table


def exact_match(given: Sequence[Ids], asked: Sequence[Question]) -> float:
    """Share of answers that equal the right ones, END included."""
    return sum(found == question.answer for found, question in zip(given, asked, strict=True)) / len(asked)


def generated(
    runs: tuple[Run, ...], texts: Tensor, length: int, decode: Callable[[np.ndarray], list[str]]
) -> Generated | None:
    """Ask for the texts' answers; None if they have no prompts.

    Args:
        runs: teacher, trained student, shipped file and untrained student.
        decode: ids [N, T] to their texts.
    """
    asked = questions(texts)
    if not asked:
        return None
    prompts = [question.prompt for question in asked]
    teacher, student, shipped = (greedy(run, prompts, length) for run in runs[:3])
    before = greedy(runs[3], prompts[:_SHOWN], length)
    columns = {
        "prompt": prompts,
        "answer": [question.answer for question in asked],
        "teacher": teacher,
        "before": before,
        "shipped": shipped,
    }
    told = {name: decode(_table(ids[:_SHOWN], length)) for name, ids in columns.items()}
    samples = [Sample(**dict(zip(told, row, strict=True))) for row in zip(*told.values(), strict=True)]
    same = [one == other for one, other in zip(teacher, shipped, strict=True)]
    mistakes = [s for s, given, question in zip(same, teacher, asked, strict=True) if given != question.answer]
    return Generated(
        n=len(asked),
        same_as_teacher=sum(same) / len(same),
        same_mistakes=sum(mistakes) / len(mistakes) if mistakes else None,
        teacher=exact_match(teacher, asked),
        student=exact_match(student, asked),
        shipped=exact_match(shipped, asked),
        samples=tuple(samples),
    )


class Continuation:
    """An ONNX file with its cache: each call gives it the new tokens alone."""

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        self._session = open_session(model, threads)
        self.has_cache = bool(empty_past(self._session, 1))

    def start(self, prompt: Ids) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits [V] after a prompt, and the cache."""
        return self.next(prompt, empty_past(self._session, 1)[PAST])

    def next(self, ids: Ids, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits [V] after further tokens, and the cache."""
        tokens = np.array([ids], np.int64)
        given = {TOKENS: tokens, MASK: np.ones_like(tokens), PAST: past}
        logits, present = self._session.run([OUTPUT, PRESENT], given)
        return logits[0], present

    def steps(self, prompt: Ids, length: int) -> Iterator[np.ndarray]:
        """Yield the logits [V] of each step of a greedy continuation."""
        logits, past = self.start(prompt)
        for _ in range(length - len(prompt)):
            yield logits
            token = int(logits.argmax())
            if token in (END, PADDING):
                return
            logits, past = self.next([token], past)


def require_same_text(run: Run, file: Path, texts: Tensor, length: int, allowed: float) -> None:
    """Require a file with its cache to continue prompts as the network does without one.

    Args:
        run: of the network.
        allowed: largest difference of a logit, where none is above 10.

    Raises:
        ExportError: a token differs beyond a tie, or a logit by more than allowed.
    """
    cached = Continuation(file)
    asked = [question.prompt for question in questions(texts, PARITY_PROMPTS)]
    asked = asked or [[int(i) for i in row[: length // 2] if i != PADDING] for row in texts[:PARITY_PROMPTS]]
    if not cached.has_cache:
        return
    for prompt, expected in zip(asked, greedy(run, asked, length), strict=True):
        network = run(_table([prompt + expected[:place] for place in range(len(expected))], length))
        for place, (logits, wanted) in enumerate(zip(cached.steps(prompt, length), network, strict=False)):
            difference, scale = float(np.abs(logits - wanted).max()), float(np.abs(wanted).max())
            lead = float(wanted.max() - wanted[int(logits.argmax())])
            if not difference <= allowed * max(1.0, scale / 10) or lead > _TIE * max(1.0, scale):
                raise ExportError(
                    f"the exported file with its cache does not continue as the network does: token {place + 1} after "
                    f"prompt {prompt} has logits that differ by up to {difference:.2g} (allowed {allowed:.2g})"
                )
            if int(logits.argmax()) != expected[place]:
                break  # a tie: both texts are right from here on


def speed_of(file: Path, texts: Tensor, length: int, threads: int, timing: MedianTimingConfig) -> Speed | None:
    """Time a file's first token after a typical prompt, and the next one; None for a file without a cache."""
    cached = Continuation(file, threads)
    if not cached.has_cache:
        return None
    asked = questions(texts, PARITY_PROMPTS)
    prompts = sorted((question.prompt for question in asked), key=len) or [[START] * (length // 2)]
    prompt = prompts[len(prompts) // 2]
    _, past = cached.start([START] * (length // 2))
    timed = time_interleaved(
        {"first": lambda: cached.start(prompt), "next": lambda: cached.next([START], past)}, timing
    )
    first, following = (float(np.median(timed[name].samples_ms)) for name in ("first", "next"))
    return Speed(
        prompt_tokens=len(prompt),
        first_token_ms=first,
        next_token_ms=following,
        tokens_per_second=1000 / following,
    )
