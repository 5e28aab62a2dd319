"""The one typed configuration of a run, put together from presets, files and `--set`.

All mistakes in it are reported at once, a line each: the place, the value found, the values allowed.
"""

import re
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from distill.config import DistillConfig, PruneConfig, QatConfig, TuneConfig
from export.card_config import CardConfig
from export.config import ExportConfig, ProfileConfig
from export.formats import FORMATS
from pipeline.data import DataConfig
from pipeline.datasets import DigitsConfig, TextConfig
from pipeline.datasets.base import DatasetConfig
from pipeline.device import DeviceConfig
from pipeline.errors import ConfigError, command, nearest
from pipeline.foreign import MAX_CONFIG_BYTES, read_text_bounded
from pipeline.frozen import Frozen
from pipeline.teacher import TeacherConfig
from pipeline.tokens import TokenizerConfig
from pipeline.yaml_text import comment_in, read_yaml, write_yaml
from search.config import RankCheckConfig, SearchConfig


class RunConfig(Frozen):
    """All settings of a run. The run directory holds them complete, as config.yaml."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$", description="part of the run's folder name")
    seed: int = Field(0, ge=0, lt=2**31, description="decides everything that is drawn")
    device: DeviceConfig = DeviceConfig()
    data: DataConfig = DigitsConfig()
    teacher: TeacherConfig = TeacherConfig()
    rank_check: RankCheckConfig = RankCheckConfig()
    search: SearchConfig = SearchConfig()
    tune: TuneConfig = TuneConfig()
    distill: DistillConfig = DistillConfig()
    prune: PruneConfig = PruneConfig()
    export: ExportConfig = ExportConfig()
    qat: QatConfig = QatConfig()
    profile: ProfileConfig = ProfileConfig()
    card: CardConfig = CardConfig()

    @property
    def read_data(self) -> Any:
        """Data configuration for the stages: for texts, a teacher's own tokenizer takes the place of the data's."""
        tokenizer = self.teacher.tokenizer
        if tokenizer is None or not isinstance(self.data, TextConfig):
            return self.data
        return self.data.model_copy(update={"tokenizer": TokenizerConfig(file=tokenizer)})

    @model_validator(mode="after")
    def _has_channels_to_prune(self) -> "RunConfig":
        space = self.search.space.name
        if self.prune.enabled and space in ("vit", "text_transformer"):
            raise ValueError(
                f"prune.method {self.prune.method!r} removes channels of convolutions, and students of {space!r} have "
                "none; leave prune out, or search resnet or mobile"
            )
        return self

    @model_validator(mode="after")
    def _has_int8_to_fine_tune(self) -> "RunConfig":
        if self.qat.mode == "always" and not any(FORMATS[name].precision == "int8" for name in self.export.formats):
            raise ValueError(
                "qat.mode 'always' fine-tunes for INT8, and export.formats has no INT8 format; add int8 there, or set "
                "qat.mode to auto"
            )
        return self

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "RunConfig":
        given = self.data.tokenizer if isinstance(self.data, TextConfig) else TokenizerConfig()
        if self.teacher.tokenizer is not None and given != TokenizerConfig():
            raise ValueError("data.tokenizer is set, and teacher.folder has its own, which the student must share")
        return self

    @model_validator(mode="after")
    def _images_for_the_image_interface(self) -> "RunConfig":
        if self.export.interface == "image" and isinstance(self.data, TextConfig):
            raise ValueError("export.interface image is for images; text goes in as token ids, with interface raw")
        return self

    @model_validator(mode="after")
    def _augments_the_batch_by_something(self) -> "RunConfig":
        if self.search.batch_augmented and not self.data.augment.is_random:
            raise ValueError(
                "search.batch_augmented crops and flips as data.augment says, which does neither; set data.augment.pad "
                "or data.augment.flip, or leave batch_augmented out"
            )
        return self


def load_config(
    path: Path | None = None, preset: str | None = None, settings: Sequence[str] = (), *, check_files: bool = True
) -> RunConfig:
    """Load a preset, overlaid by a YAML file, overlaid by `dotted.key=value` settings.

    Args:
        check_files: also report missing files named in the configuration.

    Raises:
        ConfigError: with every problem found.
    """
    raw: dict[str, Any] = {}
    problems: list[str] = []
    if preset is not None:
        raw = _merged(raw, _yaml_mapping(preset_text(preset), f"preset {preset}"))
    if path is not None:
        raw = _merged(raw, _yaml_mapping(_read(path), str(path)))
    settled: dict[str, Any] = {}
    for setting in settings:
        try:
            settled = _merged(settled, _parse_setting(setting))
        except ConfigError as error:
            problems.extend(error.problems)
    raw = _merged(raw, settled)
    try:
        config = RunConfig.model_validate(raw, context={"check_files": check_files})
    except ValidationError as error:
        raise ConfigError([*problems, *explain(error, raw)]) from None
    if problems:
        raise ConfigError(problems)
    return config


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


def explain(error: ValidationError, raw: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of pydantic's errors: `search.budget.max_params: …`."""
    for problem in error.errors():
        where = _user_path(problem["loc"], raw)
        place = ".".join(map(str, where)) or "the configuration"
        found, context = problem["input"], problem.get("ctx", {})
        match problem["type"]:
            case "extra_forbidden":
                yield f"{place}: unknown key; {nearest(str(where[-1]), _keys_at(problem['loc'][:-1]))}"
            case "union_tag_invalid":
                yield f"{place}.name: unknown {_short(context['tag'])}; {nearest(context['tag'], _quoted(context))}"
            case "union_tag_not_found":
                yield f"{place}.name: is missing; say which, of {', '.join(_tags_at(problem['loc']))}"
            case "literal_error":
                close = nearest(found if isinstance(found, str) else "", _quoted(context))
                yield f"{place}: unknown {_short(found)}; {close}"
            case "missing":
                yield f"{place}: is required"
            case "value_error":
                yield f"{place}: {context.get('error', problem['msg'])}"
            case "tuple_type" | "list_type":
                yield f"{place}: expected a list, such as [{_short(found).strip(chr(39))}] (found {_short(found)})"
            case "model_type" | "model_attributes_type" | "dict_type":
                yield f"{place}: expected keys of its own{_first_key(place, problem['loc'])} (found {_short(found)})"
            case _:
                yield f"{place}: {problem['msg'][:1].lower()}{problem['msg'][1:]} (found {_short(found)})"


def commented_yaml(config: RunConfig) -> str:
    """The configuration as YAML with each key's description beside it; `load_config` reads it back."""
    head = "# A run of edgestill. Every key may be left out; what is here is what is used.\n"
    return head + "\n".join(_commented(config, config.model_dump(mode="json"), 0)) + "\n"


def _commented(model: BaseModel, values: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    fields = sorted(type(model).model_fields.items(), key=lambda item: item[0] != "name")
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


def _preset_folder() -> Any:
    return resources.files("flows").joinpath("presets")


def _read(path: Path) -> str:
    if not path.exists():
        raise ConfigError(
            [f"no configuration file at {path}; {command('init', path)} writes one, `--preset digits` needs none"]
        )
    return read_text_bounded(path, MAX_CONFIG_BYTES, lambda problem: ConfigError([problem]))


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
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merged(base: Any, over: Any, *, is_kind: bool = False) -> Any:
    """Merge mappings key by key; below the top, a mapping with another `name` (mobile over resnet) replaces.

    Another data set of images (npz over cifar) inherits the settings common to all data sets: splits and augmentation.
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if is_kind and "name" in over and over["name"] != base.get("name", over["name"]):
        shared = () if over["name"] == "text" else base.keys() & DatasetConfig.model_fields.keys()
        return _merged({key: base[key] for key in shared}, over)
    return base | {k: _merged(base[k], v, is_kind=True) if k in base else v for k, v in over.items()}


def _user_path(loc: Sequence[int | str], raw: Any) -> list[int | str]:
    """The error's place as the user wrote it: without the tag of a chosen union member, which pydantic adds."""
    path: list[int | str] = []
    node = raw
    for position, part in enumerate(loc):
        if isinstance(node, str) and part in (node.partition(":")[0], "name"):  # a bare name, short for {name: …}
            node = {}
            continue
        if position and isinstance(node, dict) and part == node.get("name"):
            continue
        path.append(part)
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    return path


def _keys_at(loc: Sequence[int | str]) -> list[str]:
    kind = _type_at(loc)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _first_key(place: str, loc: Sequence[int | str]) -> str:
    """Hint at the keys to set if a value stands in place of a mapping; empty if none are known."""
    keys = _keys_at(loc)
    return f", such as {place}.{keys[0]}=…; known: {', '.join(keys)}" if keys else ""


def _tags_at(loc: Sequence[int | str]) -> list[str]:
    return [_tag(member) for member in _members(_type_at(loc))]


def _type_at(loc: Sequence[int | str]) -> Any:
    """Type at a pydantic location: a model, or a union if none of its members was chosen."""
    kind: Any = RunConfig
    for part in loc:
        members = _members(kind)
        if isinstance(part, int):
            kind = get_args(_bare(kind))[0]
        elif len(members) > 1:
            kind = next((m for m in members if _tag(m) == part), kind)
        elif members and part in members[0].model_fields:
            kind = members[0].model_fields[part].annotation
    members = _members(kind)
    return members[0] if len(members) == 1 else kind


def _members(kind: Any) -> list[type[BaseModel]]:
    kind = _bare(kind)
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [o for o in map(_bare, options) if isinstance(o, type) and issubclass(o, BaseModel)]


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _tag(member: type[BaseModel]) -> str:
    annotation = member.model_fields["name"].annotation
    return str(get_args(annotation)[0]) if get_origin(annotation) is Literal else member.__name__


def _quoted(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected_tags", context.get("expected", ""))))


def _short(value: Any) -> str:
    bounded = reprlib.Repr()  # YAML's aliases can turn a few lines into a value larger than memory
    bounded.maxlevel, bounded.maxlist, bounded.maxdict, bounded.maxstring = 4, 20, 20, 200
    text = bounded.repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
