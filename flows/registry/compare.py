"""Two finished runs side by side: their shipped files on the same test examples, and timed in turns."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgestill.export.evaluate import answers_of, open_files
from edgestill.export.result import ExportedModel, ProfileResult
from edgestill.export.timing import timed_in_turns
from edgestill.flows.config.loading import config_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.registry.rule import Compared, error_of
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import BUNDLE, DataResult, ReportResult
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training.difference import class_weights_of


class Finished(NamedTuple):
    """Parts of a finished run that are compared with another's."""

    run: RunDir
    config: RunConfig
    data: DataResult
    file: ExportedModel
    format: str


def finished(root: Path) -> Finished:
    """Open a finished run to read.

    Raises:
        RunDirError: it is missing, altered or not finished.
    """
    run = RunDir.view(root)
    run.read("report", ReportResult, movable=BUNDLE)
    profiled = run.read("profile", ProfileResult)
    model = profiled.formats[profiled.default]
    return Finished(run, config_of(run), run.read("data", DataResult), model, profiled.default)


def compare(candidate: Finished, promoted: Finished, look: int) -> Compared:
    """Compare a candidate with the promoted run.

    Raises:
        RunDirError: they were tested on other examples, so nothing can be said.
    """
    if candidate.data.digests["test"] != promoted.data.digests["test"]:
        raise RunDirError(
            f"{candidate.run.root.name} and the promoted {promoted.run.root.name} have other test examples, so the "
            "rule cannot compare them; `edgestill promote` does it by hand"
        )
    context = StageContext(candidate.run, candidate.config, lambda *tick: None)
    test = load_test(candidate.config.read_data, candidate.config.seed, context.tokenizer())
    runs = {
        name: open_files({one.format: one.file}, one.run.root)[one.format]
        for name, one in (("candidate", candidate), ("promoted", promoted))
    }
    right = {name: answers_of(run, test).right for name, run in runs.items()}
    is_balanced = candidate.config.distill.training.metric == "balanced_accuracy"
    ratio, medians = timed_in_turns(
        runs["promoted"], runs["candidate"], context.file_examples(), candidate.config.profile, 1 - error_of(look)
    )
    return Compared(
        gained=int((right["candidate"] & ~right["promoted"]).sum()),
        lost=int((right["promoted"] & ~right["candidate"]).sum()),
        n=len(test),
        look=look,
        speedup=ratio.value,
        speedup_interval=ratio.interval,
        latency_ms=medians[1],
        max_latency_ms=context.limits.max_latency_ms,
        min_speedup=candidate.config.export.gate.min_speedup,
        max_loss=candidate.config.export.gate.max_accuracy_drop,
        recall=_in_recall(right["candidate"], right["promoted"], test.targets.cpu().numpy()) if is_balanced else None,
    )


def _in_recall(candidate: np.ndarray, promoted: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Sum, and sum of squares, of the differences by example, by which their mean is that of the mean recalls."""
    differences = (candidate.astype(float) - promoted.astype(float)) * class_weights_of(targets)
    return float(differences.sum()), float((differences**2).sum())
