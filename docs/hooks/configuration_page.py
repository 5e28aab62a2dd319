"""The page of every configuration key, from the fields of RunConfig."""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edgestill.flows.config.model import RunConfig
from edgestill.flows.plan.listing import _TABLES, listed
from edgestill.pipeline.runs.yaml_text import write_yaml
from edgestill.pipeline.teachers import BUILT_IN

HEAD = """# Configuration

Every key of a configuration file, with what it takes and what holds where it is left out. `--set
search.budget.max_params=50k` sets a key on the command line, `edgestill init --full` writes a file with all of them,
and the run's `config.yaml` has those that were used. A key of another spelling is an error.

Where a key chooses among several things by `name`, the plain name may stand for the mapping: `search: {space: mobile}`.

This page is made from the types that read the file.
"""
_SIGNS = {
    "ge": "≥\u00a0{:,}",
    "gt": ">\u00a0{:,}",
    "le": "≤\u00a0{:,}",
    "lt": "<\u00a0{:,}",
    "min_length": "{:,} or more long",
    "max_length": "{:,} long at most",
}
_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Any: "anything"}


_BUILT_IN = "a built-in teacher, by `architecture`, or a local Hugging Face folder, by `folder`"


class Key(NamedTuple):
    """One line of a table: the key below its heading, its type in words, its default, its description."""

    name: str
    takes: str
    default: str
    words: str


def page() -> str:
    """Return the page: a table of the run's own keys, then a heading for each part."""
    own = {name: field for name, field in RunConfig.model_fields.items() if not members(field.annotation)}
    parts = (_part(name, field) for name, field in RunConfig.model_fields.items() if name not in own)
    return "\n".join((HEAD, _table(_keys_of(RunConfig, own)), *parts))


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a model and of the models in it, but for the name by which it was chosen."""
    yield from _keys_of(model, model.model_fields, prefix)


def members(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a field or its list may hold: one, or several of which the key `name` chooses."""
    kind = _bare(annotation)
    if get_origin(kind) is tuple:
        return members(get_args(kind)[0])
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [one for one in map(_bare, options) if isinstance(one, type) and issubclass(one, BaseModel)]


def tag(model: type[BaseModel]) -> str:
    """Return the name that chooses a member of a union."""
    named = model.model_fields.get("name")
    return str(get_args(named.annotation)[0]) if named and get_origin(named.annotation) is Literal else BUILT_IN


def _part(name: str, field: FieldInfo) -> str:
    head = f"## `{name}`\n\n{_sentence(field.description or '')}\n"
    models = members(field.annotation)
    if len(models) == 1:
        return "\n".join((head, _table(keys(models[0])), *_choices_in(models[0], name), *_lists_in(models[0], name)))
    return "\n".join((head, *_choices(models, name)))


def _words_of(place: str) -> dict[str, str]:
    """Return a line on each name that a key takes, from the table of these names."""
    table = next((word for word, (_, key) in _TABLES.items() if key == place), None)
    lines = listed(table).splitlines() if table else ()
    return dict(line.split(maxsplit=1) for line in lines)


def _choices_in(model: type[BaseModel], place: str) -> Iterator[str]:
    """Yield a section for each key below a model whose `name` chooses among several."""
    for name, field in model.model_fields.items():
        models = members(field.annotation)
        if len(models) > 1:
            yield f"### `{place}.{name}`\n"
            yield from _choices(models, f"{place}.{name}")
        elif models:
            yield from _choices_in(models[0], f"{place}.{name}")


def _lists_in(model: type[BaseModel], place: str) -> Iterator[str]:
    """Yield a section for each table that gives a key its names and no further keys."""
    for _, key in _TABLES.values():
        above, _, name = key.rpartition(".")
        if above == place and name in model.model_fields and not members(model.model_fields[name].annotation):
            yield f"### `{key}`\n\n{_names(key, _words_of(key))}"


def _choices(models: Sequence[type[BaseModel]], place: str) -> Iterator[str]:
    """Yield the tables of a union: the keys of each choice, those that several share once."""
    by_name = {tag(model): list(keys(model)) for model in models}
    yield _names(place, by_name)
    shared: dict[tuple[str, ...], list[Key]] = {}
    for key in dict.fromkeys(key for own in by_name.values() for key in own):
        having = tuple(name for name, own in by_name.items() if key in own)
        shared.setdefault(having, []).append(key)
    for having, lines in sorted(shared.items(), key=lambda item: -len(item[0])):
        yield f"{_whose(having, by_name)}\n\n{_table(lines)}"
    for model in models:
        yield from _lists_in(model, place)


def _names(place: str, chosen: Iterable[str]) -> str:
    words = _words_of(place)
    lines = [f"| `{name}` | {_cell(words.get(name, _BUILT_IN))} |" for name in chosen if name != BUILT_IN]
    if BUILT_IN in chosen:
        lines.append(f"| none | {_cell(_BUILT_IN)} |")
    return "\n".join(("| `name` | |", "|---|---|", *lines, ""))


def _whose(having: Sequence[str], all_names: Mapping[str, Any]) -> str:
    if len(having) == len(all_names) and len(having) > 1:
        return "Keys of all of them:"
    return f"Keys of {', '.join(f'`{name}`' for name in having)}:"


def _keys_of(model: type[BaseModel], fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[Key]:
    for name, field in fields.items():
        models = members(field.annotation)
        if name == "name" and get_origin(field.annotation) is Literal:
            continue
        if len(models) == 1 and not _is_list(field.annotation):
            yield from keys(models[0], f"{prefix}{name}.")
        else:
            takes = "a choice, below" if models else takes_words(field.annotation, field.metadata)
            yield Key(prefix + name, takes, _default(field), _described(model, name))


def _described(model: type[BaseModel], name: str) -> str:
    """Return a key's description; where a subclass changes no more than the default, that of the class above."""
    fields = (above.model_fields.get(name) for above in model.__mro__ if issubclass(above, BaseModel))
    return next((field.description for field in fields if field and field.description), "")


def _is_list(annotation: Any) -> bool:
    return get_origin(_bare(annotation)) is tuple


def takes_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say what a key takes: its type and its bounds."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return takes_words(inner, (*metadata, *_constraints(more)))
    if get_origin(annotation) in (Union, types.UnionType):
        own = () if Path in get_args(annotation) else metadata
        return ", or ".join("`null`" if one is type(None) else takes_words(one, own) for one in get_args(annotation))
    bounds = _bounds(metadata)
    return _kind_words(annotation) + (f", {bounds}" if bounds else "")


def _kind_words(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        table = next((key for table, key in _TABLES.values() if set(table) == set(inside)), None)
        return f"a name of `{table}`" if table else ", ".join(f"`{value}`" for value in inside)
    if origin is tuple:
        return _tuple_words(inside)
    return "keys of its own" if origin is dict else _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def _tuple_words(inside: tuple[Any, ...]) -> str:
    one = takes_words(inside[0])
    return f"list of {one}".replace("list of a name", "names") if inside[-1] is Ellipsis else f"{len(inside)} of {one}"


def _constraints(metadata: Sequence[Any]) -> Iterator[Any]:
    for one in metadata:
        yield from one.metadata if isinstance(one, FieldInfo) else (one,)


def _bounds(metadata: Sequence[Any]) -> str:
    """Say the bounds that pydantic's constraints hold."""
    found = {name: getattr(one, name) for one in metadata for name in _SIGNS if getattr(one, name, None) is not None}
    return ", ".join(_SIGNS[name].format(value) for name, value in found.items())


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return f"`{write_yaml(_plain(value), in_one_line=True)}`"


def _plain(value: Any) -> Any:
    """Turn a default into what YAML writes; a model with its own name and no more is that name."""
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json")
        return given["name"] if given == type(value)().model_dump(mode="json") and "name" in given else given
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _table(lines: Iterator[Key] | Sequence[Key]) -> str:
    rows = [f"| `{key.name}` | {_cell(key.takes)} | {_cell(key.default)} | {_cell(key.words)} |" for key in lines]
    if not rows:
        return ""
    return "\n".join(("| key | takes | default | |", "|---|---|---|---|", *rows, ""))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." if text else ""


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind
