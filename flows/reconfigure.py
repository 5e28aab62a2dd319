"""Other settings for a run that has begun: in it while no finished stage has read them, else in a new run beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgestill.flows.chain import results_of, stage_names, stages_of
from edgestill.flows.config import load_config
from edgestill.flows.config.loading import config_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.runner import new_run
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import Results
from edgestill.pipeline.errors import ConfigError, command
from edgestill.pipeline.runs.run_config import CONFIG
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.runs.yaml_text import write_yaml


def reconfigure(run: RunDir, settings: Sequence[str]) -> dict[str, str]:
    """Change a held run's settings, record that, and return the changes: by dotted key, `old -> new`.

    What the unfinished stage has done with other inputs is removed.

    Raises:
        ConfigError: a setting is wrong, or an input of a finished stage.
        RunDirError: the run cannot go on.
    """
    old = run.config(RunConfig)
    new = load_config(run.root / CONFIG, None, settings)
    changes = dict(_changes(old.model_dump(mode="json"), new.model_dump(mode="json")))
    if changes:
        _require_unread(run, old, new, settings)
        run.reconfigure(new, changes)
    return changes


@contextmanager
def going_on(
    root: Path, settings: Sequence[str] = (), allow: Callable[[RunConfig], None] = lambda config: None
) -> Iterator[RunDir]:
    """Open a run to go on with it; settings that a finished stage has read make a new run, with the stages before it.

    Args:
        allow: called with the configuration before anything is read or written for it; it may refuse.

    Raises:
        ConfigError: a setting is wrong.
        RunDirError: the run cannot be used.
    """
    begun = RunDir.open(root)
    with begun:
        if settings:
            allow(load_config(begun.root / CONFIG, None, settings, check_files=False))
        if not settings or _fits(begun, settings):
            yield begun
            return
        config = load_config(begun.root / CONFIG, None, settings)
        stages = _unread(begun, config)
        with new_run(config, begun.root.parent) as branch:
            branch.adopt(begun, stages)
            begun.close()
            yield branch


def _fits(run: RunDir, settings: Sequence[str]) -> bool:
    """Change the run's settings if no finished stage has read them; True if that was done."""
    load_config(run.root / CONFIG, None, settings)  # a wrong setting is wrong in either way
    try:
        reconfigure(run, settings)
    except ConfigError:
        return False
    return True


def _unread(run: RunDir, config: RunConfig) -> list[str]:
    """Names of the finished stages, in order, up to the first that the configuration would change."""
    manifest, results = run.manifest, Results()
    context = StageContext(run, config, lambda *tick: None)
    found: list[str] = []
    for ours, theirs in zip(stages_of(config), stages_of(config_of(run)), strict=False):
        if ours.name != theirs.name or ours.name not in manifest.stages:
            break
        if not run.is_done(ours.name, ours.inputs_digest(context, results)):
            break
        result = ours.read(run)
        results.add(ours.name, result, ours.sentence(result))
        found.append(ours.name)
    return found


def _require_unread(run: RunDir, old: RunConfig, new: RunConfig, settings: Sequence[str]) -> None:
    finished, names, results = list(run.manifest.stages), stage_names(new), results_of(run, old)
    before, after = (StageContext(run, config, lambda *tick: None) for config in (old, new))
    reader = next((a for a, b in zip(finished, names, strict=False) if a != b), None)
    for stage in stages_of(old):
        if reader is None and stage.name in finished:
            same = stage.inputs_digest(before, results) == stage.inputs_digest(after, results)
            reader = None if same else stage.name
    if reader is not None:
        told = " and ".join(setting.partition("=")[0] for setting in settings)
        way_out = command("run", run.root / CONFIG, *(part for given in settings for part in ("--set", given)))
        raise ConfigError([f"the finished {reader} stage depends on {told}; start a new run: {way_out}"])
    for stage in stages_of(old):
        if stage.name not in finished:
            if stage.inputs_digest(before, results) != stage.inputs_digest(after, results):
                run.discard(stage.name)
            return


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    for key in {**old, **new}:
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changes(was, now, f"{place}{key}.")
        elif was != now:
            yield f"{place}{key}", f"{_yaml(was)} -> {_yaml(now)}"


def _yaml(value: Any) -> str:
    return write_yaml(value, in_one_line=True)
