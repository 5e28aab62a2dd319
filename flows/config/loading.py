"""Put a configuration together from presets, files and `--set`, and write it with its descriptions.

All mistakes are reported at once, a line each: the place, the value found, the values allowed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgestill.flows.config.by_kind import lent_to
from edgestill.flows.config.explaining import explain, problems_in, user_path
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.base import DatasetConfig
from edgestill.pipeline.errors import ConfigError, command, nearest
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES, read_text_bounded
from edgestill.pipeline.plugins import cautions
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.runs.yaml_text import comment_in, key_lines, read_yaml, write_yaml
from edgestill.pipeline.teachers import FamilyConfig, spelt_out


def load_config(
    path: Path | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    *,
    check_files: bool = True,
    note: Callable[[str], None] = lambda line: None,
) -> RunConfig:
    """Load a preset, overlaid by a YAML file, overlaid by `dotted.key=value` settings.

    Without a preset, data of another kind than images bring defaults of their own for what is not given.

    Args:
        check_files: also report missing files named in the configuration.
        note: called with a sentence about such defaults.

    Raises:
        ConfigError: with every problem found.
    """
    raw: dict[str, Any] = {}
    lines: dict[tuple[str | int, ...], int] = {}
    problems: list[str] = []
    if preset is not None:
        raw = _merged(raw, _spelt_out(_yaml_mapping(preset_text(preset), f"preset {preset}")))
    if path is not None:
        text = _read(path)
        raw = _overlaid(raw, _yaml_mapping(text, str(path)))
        lines = key_lines(text)
    settled: dict[str, Any] = {}
    for setting in settings:
        try:
            settled = _merged(settled, _spelt_out(_parse_setting(setting)))
        except ConfigError as error:
            problems.extend(error.problems)
    raw = _overlaid(raw, settled)
    if preset is None and (lent := lent_to(raw)) is not None:
        raw = _merged(lent.parts(_yaml_mapping(preset_text(lent.preset), f"preset {lent.preset}")), raw)
        note(lent.note)
    try:
        config = RunConfig.model_validate(raw, context={"check_files": check_files})
    except ValidationError as error:
        places = [_origin(user_path(one["loc"], raw), settled, path, lines) for one in problems_in(error)]
        told = (place + line for place, line in zip(places, explain(error, raw), strict=True))
        raise ConfigError([*problems, *told, *cautions()]) from None
    if problems:
        raise ConfigError(problems)
    return config


def changed(
    base: RunConfig, given: Mapping[str, Any], settings: Sequence[str] = (), *, check_files: bool = True
) -> RunConfig:
    """Return a configuration with other values.

    Args:
        given: values by dotted key; settings: `dotted.key=value` each, which count more.

    Raises:
        ConfigError: with every problem found.
    """
    over: dict[str, Any] = {}
    for key, value in given.items():
        over = _merged(over, _nested(key.split("."), value))
    for setting in settings:
        over = _merged(over, _spelt_out(_parse_setting(setting)))
    return validated(_overlaid(base.model_dump(mode="json"), over), check_files=check_files)


def validated(raw: Any, *, check_files: bool = True) -> RunConfig:
    """Return a configuration read from plain values.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        return RunConfig.model_validate(raw, context={"check_files": check_files})
    except ValidationError as error:
        raise ConfigError(explain(error, raw)) from None


def config_of(run: RunDir) -> RunConfig:
    """Read the configuration that a run was started with; one from before the stage `baselines` has none.

    Raises:
        RunDirError: it cannot be used here; names each plug-in and key that is unknown, and the known ones.
    """

    def told(error: ValidationError, written: Any) -> Iterator[str]:
        yield from explain(error, written)
        yield from cautions()

    config = run.config(RunConfig, told)
    return config if "baselines" in config.model_fields_set else config.without_baselines


def _origin(
    where: Sequence[str | int],
    settled: Mapping[str, Any],
    path: Path | None,
    lines: Mapping[tuple[str | int, ...], int],
) -> str:
    """Say where a key was given: `--set `, or `config.yaml:12: `; the more exact place counts."""
    depth = next(d for d in range(len(where), -1, -1) if d == 0 or tuple(where[:d]) in lines)
    if where and _depth_in(settled, where) >= max(depth, 1):
        return "--set "
    if path is None or (where and not depth):
        return ""
    return f"{path}:{lines[tuple(where[:depth])]}: " if depth else f"{path}: "


def _depth_in(node: Any, where: Sequence[str | int]) -> int:
    """Count the parts of a path that lead into nested mappings and lists."""
    for depth, part in enumerate(where):
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if not inside:
            return depth
        node = node[part]
    return len(where)


def _spelt_out(raw: dict[str, Any]) -> dict[str, Any]:
    return raw | {"teacher": spelt_out(raw["teacher"])} if "teacher" in raw else raw


def preset_names() -> list[str]:
    """Names of the built-in presets, sorted."""
    return sorted(p.name.removesuffix(".yaml") for p in _preset_folder().iterdir() if p.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset as YAML; its first line is a comment on its purpose.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in preset_names():
        raise ConfigError([f"unknown preset {name!r}; {nearest(name, preset_names())}"])
    text: str = (_preset_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text


def commented_yaml(config: RunConfig) -> str:
    """The configuration as YAML with each key's description beside it; `load_config` reads it back."""
    head = "# A run of edgestill. Every key may be left out; what is here is what is used.\n"
    return head + "\n".join(_commented(config, config.model_dump(mode="json"), 0)) + "\n"


def _commented(model: BaseModel, values: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    written = [(name, field) for name, field in type(model).model_fields.items() if name in values]
    fields = sorted(written, key=lambda item: item[0] != "name")
    for name, field in fields:
        value = getattr(model, name)
        note = f"  # {field.description}" if field.description else ""
        if isinstance(value, BaseModel):
            if depth == 0:
                yield ""
            yield f"{indent}{name}:{note}"
            yield from _commented(value, values[name], depth + 1)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{indent}{name}:{note}"
            for item in value:
                lines = list(_commented(item, item.model_dump(mode="json"), depth + 2))
                yield f"{indent}  - {lines[0].lstrip()}"
                yield from lines[1:]
        else:
            yield f"{indent}{name}: {write_yaml(values[name], in_one_line=True)}{note}"


_YAML = (".yaml", ".yml")


def _preset_folder() -> Any:
    return resources.files("edgestill.flows").joinpath("presets")


def _read(path: Path) -> str:
    kind = None if path.suffix.lower() in _YAML or not path.exists() else _kind_of_data(path)
    if kind is not None:
        way_out = command("run", "--set", f"data.name={kind}", "--set", f"data.path={path}")
        raise ConfigError([f"{path} is data, not a configuration; {way_out} takes it"])
    if not path.exists():
        raise ConfigError(
            [f"no configuration file at {path}; {command('init', path)} writes one, `--preset digits` needs none"]
        )
    return read_text_bounded(path, MAX_CONFIG_BYTES, lambda problem: ConfigError([problem]))


def _kind_of_data(path: Path) -> str | None:
    return next((name for name, (config, _) in DATASETS.items() if config.settings_for(str(path)) is not None), None)


def _yaml_mapping(text: str, source: str) -> dict[str, Any]:
    found = read_yaml(text, source)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError([f"{source} holds a {type(found).__name__}; a mapping of keys to values is needed"])
    return found


def _parse_setting(setting: str) -> dict[str, Any]:
    dotted, equals, text = setting.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError([f"--set {setting}: expected dotted.key=value, such as search.budget.max_params=50000"])
    value = read_yaml(text, f"the value of --set {dotted}")
    if comment := comment_in(text):
        raise ConfigError(
            [f"--set {dotted}: YAML takes {comment[:80]!r} for a comment, which would be lost; put the value in quotes"]
        )
    return _nested(keys, value)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge a layer into those before it; a teacher without a name there is a built-in one, so a name replaces it."""
    over = _spelt_out(over)
    teacher, named = base.get("teacher"), over.get("teacher")
    if isinstance(teacher, dict) and isinstance(named, dict) and "name" in named and "name" not in teacher:
        base = {**base, "teacher": _common(teacher, named["name"])}
    return _merged(base, over)  # type: ignore[no-any-return]


def _merged(base: Any, over: Any, *, is_kind: bool = False) -> Any:
    """Merge mappings key by key; below the top, a mapping with another `name` (mobile over resnet) replaces.

    Another data set of images (npz over cifar) inherits the settings common to all data sets: splits and augmentation.
    One of another kind does not: it is not augmented. Another family of teachers inherits the training.
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if is_kind and "name" in over and over["name"] != base.get("name", over["name"]):
        return _merged(_common(base, over["name"]), over)
    return base | {k: _merged(base[k], v, is_kind=True) if k in base else v for k, v in over.items()}


def _common(base: dict[str, Any], name: object) -> dict[str, Any]:
    """Settings that something of another name inherits."""
    shared = FamilyConfig.model_fields.keys() | (DatasetConfig.model_fields.keys() if _is_of_images(name) else set())
    return {key: value for key, value in base.items() if key in shared}


def _is_of_images(name: object) -> bool:
    """True unless it is a data set of another kind of input."""
    config, _ = DATASETS.get(str(name), (DatasetConfig, None))
    return config.kind == DatasetConfig.kind
