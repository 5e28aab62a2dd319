"""Runs to compare, with the results of their finished stages, and groups of them that were judged on equal terms."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgestill.export.result import ProfileResult
from edgestill.flows.chain import results_of, stage_names
from edgestill.flows.config.loading import config_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.results import DataResult, ReportResult, Results
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.figures import listing
from edgestill.pipeline.runs.manifest import Manifest
from edgestill.pipeline.runs.rundir import RunDir

FEWEST, MOST = 2, 6


@dataclass(frozen=True)
class ComparedRun:
    """A run, finished or not."""

    name: str  # unlike those beside it
    root: Path
    config: RunConfig
    manifest: Manifest
    results: Results  # of the finished stages

    @property
    def state(self) -> str:
        """`finished`, or how far the run is."""
        names, done = stage_names(self.config), [*self.results.sentences]
        if len(done) == len(names):
            return "finished"
        return f"unfinished: {len(done)} of {len(names)} stages{f', up to {done[-1]}' if done else ''}"

    def split(self, name: str) -> str | None:
        """Digest of a split's examples; None before the data stage."""
        data = self.results.get(DataResult)
        return None if data is None else data.digests.get(name)

    @property
    def tested_on(self) -> str | None:
        """Digest of the examples of the test accuracy; None without one."""
        return self.split("test") if self.results.get(ReportResult) is not None else None

    @property
    def timed_by(self) -> tuple[str, str, int, int] | None:
        """Processor, runtime, threads and batch of the timing; None without one."""
        profiled = self.results.get(ProfileResult)
        if profiled is None:
            return None
        latency = profiled.student.latency
        return profiled.cpu, latency.runtime, latency.threads, latency.batch


def read_runs(roots: Sequence[Path]) -> list[ComparedRun]:
    """Read the runs in these folders.

    Raises:
        ConfigError: they are too few, too many, or one of them is there twice.
        RunDirError: a run cannot be read, or was altered.
    """
    if not FEWEST <= len(roots) <= MOST:
        raise ConfigError([f"{len(roots)} run{'s' * (len(roots) != 1)} given; compare takes {FEWEST} to {MOST}"])
    twice = [str(root) for root, count in Counter(root.resolve() for root in roots).items() if count > 1]
    if twice:
        raise ConfigError([f"{twice[0]} is given twice; name different runs"])
    opened = [RunDir.view(root) for root in roots]
    configs = [config_of(run) for run in opened]
    return [
        ComparedRun(name, run.root, config, run.manifest, results_of(run, config))
        for name, run, config in zip(_names(opened, configs), opened, configs, strict=True)
    ]


def _names(runs: Sequence[RunDir], configs: Sequence[RunConfig]) -> list[str]:
    """Configured names if they differ; else the folders', with a number where these are equal too."""
    short = [config.name for config in configs]
    if len(set(short)) == len(short):
        return short
    folders = [run.root.resolve().name for run in runs]
    unlike = len(set(folders)) == len(folders)
    return folders if unlike else [f"{place}: {folder}" for place, folder in enumerate(folders, start=1)]


def groups(runs: Sequence[ComparedRun], key: Callable[[ComparedRun], Hashable]) -> list[list[ComparedRun]]:
    """Group runs by a key, in order; those with None are in no group."""
    found: dict[Hashable, list[ComparedRun]] = {}
    for run in runs:
        if key(run) is not None:
            found.setdefault(key(run), []).append(run)
    return list(found.values())


def warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """Say which runs cannot be compared in accuracy or latency, a sentence each."""
    said = []
    tested, timed = groups(runs, lambda run: run.tested_on), groups(runs, lambda run: run.timed_by)
    if len(tested) > 1:
        said.append(
            f"The runs were tested on different examples ({_apart(tested)}; the digests are in the table): accuracies "
            "are compared within a group alone."
        )
    if len(timed) > 1:
        said.append(
            f"The runs were timed on different processors, runtimes, threads or batches ({_apart(timed)}): latencies "
            "of different groups say nothing of each other."
        )
    smoke = [run.name for run in runs if run.config.smoke]
    if smoke:
        said.append(f"No figure of {listing(smoke)} counts: a trial on a handful of examples.")
    return said


def _apart(found: Sequence[Sequence[ComparedRun]]) -> str:
    return " / ".join(listing([run.name for run in group]) for group in found)
