"""`edgestill resume RUN --set …`: change settings of a run that no finished stage has read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgestill.flows.chain import results_of, stage_names, stages_of
from edgestill.flows.config import load_config
from edgestill.flows.config.model import RunConfig
from edgestill.flows.stages.context import StageContext
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
