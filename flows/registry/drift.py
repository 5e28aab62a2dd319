"""Drift: the promoted student's accuracy on a night's new test examples, against that on its own.

The promoted run's default file answers the night's test split. The two test splits count as independent samples, and
the difference has the interval of Agresti and Caffo (2000, The American Statistician 54, 280-288) at 99 %, so that an
undrifted student raises a false alarm in one of 200 nights. Where the splits share examples, the interval is too wide
rather than too narrow.
"""

import math
from pathlib import Path
from statistics import NormalDist

from edgestill.export.evaluate import evaluate_run, open_files
from edgestill.flows.registry.book import Decision, held_book, now
from edgestill.flows.registry.compare import Finished, finished
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import ReportResult
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.figures import points_interval
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.training.metrics import Metrics

CONFIDENCE = 0.99


class Drift(Frozen):
    """Accuracy on the student's own test examples, and on newer ones."""

    before: float
    n_before: int
    after: float
    n_after: int

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the accuracy now less the one before."""
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        (p, n), (q, m) = _one_more(self.before, self.n_before), _one_more(self.after, self.n_after)
        half = z * math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
        return max(-1.0, q - p - half), min(1.0, q - p + half)

    @property
    def is_drift(self) -> bool:
        """True if the accuracy fell by more than the interval."""
        return self.interval[1] < 0

    @property
    def sentence(self) -> str:
        return (
            f"{self.after:.2%} on the {self.n_after:,} test examples of the night, {self.before:.2%} on its own "
            f"{self.n_before:,}: {100 * (self.after - self.before):+.1f} points "
            f"{points_interval(*self.interval)} at {CONFIDENCE:.0%}"
        ).replace("-", "−")


def _one_more(share: float, n: int) -> tuple[float, int]:
    """A success and a failure more, as Agresti and Caffo add them."""
    return (share * n + 1) / (n + 2), n + 2


def measure(candidate: Path, promoted: Path) -> Drift | None:
    """Measure the promoted run's student on a night's test examples; None if they are its own.

    Raises:
        RunDirError: the two runs tell other classes apart, or one is not finished.
    """
    tonight, its_own = finished(candidate), finished(promoted)
    if tonight.data.digests["test"] == its_own.data.digests["test"]:
        return None
    if tonight.data.task.labels != its_own.data.task.labels:
        raise RunDirError(f"{promoted.name} tells other classes apart than {candidate.name}")
    before = its_own.run.read("report", ReportResult, movable="bundle").formats[its_own.format]
    after = _now(tonight, its_own)
    return Drift(before=before.accuracy, n_before=before.n, after=after.accuracy, n_after=after.n)


def _now(tonight: Finished, its_own: Finished) -> Metrics:
    tokenizer = StageContext(its_own.run, its_own.config, lambda *tick: None).tokenizer()
    test = load_test(tonight.config.read_data, tonight.config.seed, tokenizer)
    runs = open_files({its_own.format: its_own.file}, its_own.run.root)
    return evaluate_run(runs[its_own.format], test)


def enter(promoted: Path, drift: Drift) -> None:
    """Enter a drift in the registry."""
    with held_book(promoted.parent) as pages:
        decision = Decision(run=promoted.name, at=now(), kind="drifted", by="rule", reason=drift.sentence)
        pages.book = pages.book.deciding(decision)
