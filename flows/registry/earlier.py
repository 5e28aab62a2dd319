"""Earlier runs in a folder of runs: the last one of a configuration, and what the registry's found."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgestill.distill.result import TuneResult
from edgestill.flows.config.model import RunConfig
from edgestill.flows.registry.book import read_book
from edgestill.flows.stages.results import DataResult, WarmStartResult
from edgestill.pipeline.errors import EdgestillError, RunDirError
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.find import list_runs
from edgestill.pipeline.runs.manifest import MANIFEST, read_run_manifest
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.search.result import SearchResult
from edgestill.search.tournament import TournamentResult

_ALIKE = ("space", "scorer", "scorer_settings", "combine")  # keys of the search
MOST_RUNS, MOST_SEEDS, MOST_STUDENTS = 10, 32, 2


def last_run(runs: Path, config: RunConfig) -> Path | None:
    """Find the newest run of a configuration; None if there is none. Damaged ones are passed over."""
    wanted = digest(config)
    for root in reversed(list_runs(runs)):
        with contextlib.suppress(RunDirError):
            if read_run_manifest(root).config_digest == wanted:
                return root
    return None


def collect(runs: Path, config: RunConfig, data: DataResult) -> WarmStartResult:
    """Collect what a run can begin with from the registry's runs of its space, task and scorer.

    Fronts give architectures. The best trial of tuning counts only of runs with the same data and recipe. The students
    are those that the promoted run and the newest one shipped.
    """
    found = list(_alike(runs, config, data))[:MOST_RUNS]
    students = _unique([student for _, _, student in found])[:MOST_STUDENTS]
    fronts = [candidate.architecture for _, searched, _ in found for candidate in searched.front]
    most = min(MOST_SEEDS, config.search.evaluations // 2)
    return WarmStartResult(
        runs=tuple(run.root.name for run, _, _ in found),
        seeds=tuple(sorted(_unique([*students, *fronts])[:most])),
        trials=tuple(_trials([run for run, _, _ in found], config, data))[: config.tune.trials // 2],
        students=tuple(sorted(students)),
    )


def _alike(runs: Path, config: RunConfig, data: DataResult) -> Iterator[tuple[RunDir, SearchResult, str]]:
    """Yield (run, its search's result, its student), the promoted run first, then from the newest on."""
    book = read_book(runs)
    names = dict.fromkeys([*([book.current] if book.current else []), *(d.run for d in reversed(book.decisions))])
    for name in names:
        if not (runs / name / MANIFEST).is_file():
            continue
        with contextlib.suppress(EdgestillError, OSError):  # a damaged run costs its part
            run = RunDir.view(runs / name)
            theirs, own = run.config(RunConfig).search, config.search
            is_alike = all(getattr(theirs, key) == getattr(own, key) for key in _ALIKE)
            if is_alike and run.read("data", DataResult).task == data.task:
                student = run.read("tournament", TournamentResult).winner.architecture
                yield run, run.read("search", SearchResult), student


def _trials(runs: Sequence[RunDir], config: RunConfig, data: DataResult) -> Iterator[dict[str, float]]:
    told = list[dict[str, float]]()
    for run in runs:
        theirs = run.config(RunConfig)
        if theirs.distill != config.distill or run.read("data", DataResult).digests != data.digests:
            continue
        best = run.read("tune", TuneResult).best
        if best and best not in told:
            told.append(best)
            yield best


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
