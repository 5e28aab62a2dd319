"""Tell pydantic's errors in sentences: the place as the user wrote it, the value found, the values allowed."""

import difflib
import re
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.errors import nearest
from edgestill.pipeline.teachers import BUILT_IN, TeacherConfig

_BRANCH = re.compile(r"(constrained-|literal\[|tuple\[|list\[|(int|float|str|bool)$)")  # in pydantic's places
_MOST = 6  # places that are told for a key


def explain(error: ValidationError, raw: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of pydantic's errors: `search.budget.max_params: …`."""
    for problem in problems_in(error):
        where = user_path(problem["loc"], raw)
        place = ".".join(map(str, where)) or "the configuration"
        found, context = problem["input"], problem.get("ctx", {})
        match problem["type"]:
            case "extra_forbidden" if where[-1] == "name" and _type_at(problem["loc"][:-1]) is TeacherConfig:
                yield f"{place}: unknown {_short(found)}; known: none, and a built-in teacher is given without a name"
            case "extra_forbidden":
                yield f"{place}: unknown key; {_key_meant(problem['loc'])}"
            case "union":
                yield f"{place}: expected {' or '.join(context['expected'])} (found {_short(found)})"
            case "union_tag_invalid":
                known = [tag for tag in _quoted(context) if tag != BUILT_IN]
                without = "" if len(known) == len(_quoted(context)) else "; a built-in one is given without a name"
                yield f"{place}.name: unknown {_short(context['tag'])}; {nearest(context['tag'], known)}{without}"
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


def problems_in(error: ValidationError) -> list[dict[str, Any]]:
    """Return pydantic's errors; those of one value that is none of several types are one, of type `union`."""
    found: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = [dict(one) for one in error.errors()]
    for problem in errors:
        branch = next((n for n, part in enumerate(problem["loc"]) if n and _BRANCH.match(str(part))), None)
        if branch is None:
            found.append(problem)
            continue
        *_, last = [{}, *found]
        loc, expected = problem["loc"][:branch], _expected(problem)
        if last.get("type") != "union" or last["loc"] != loc:
            found.append({"type": "union", "loc": loc, "input": problem["input"], "ctx": {"expected": [expected]}})
        elif expected not in last["ctx"]["expected"]:
            last["ctx"]["expected"].append(expected)
    return found


def _expected(problem: Mapping[str, Any]) -> str:
    """Name the type that a branch of a union stands for."""
    kind = problem["type"]
    match problem.get("ctx"):
        case {"expected": allowed}:
            return str(allowed)
        case {"ge": least}:
            return f"{least} or more"
        case {"le": most}:
            return f"{most} or less"
    named = {"int": "a whole number", "float": "a number", "tuple": "a list", "list": "a list", "string": "text"}
    return next((words for start, words in named.items() if kind.startswith(start)), str(problem["msg"]).lower())


def _key_meant(loc: Sequence[int | str]) -> str:
    """Hint after an unknown key: its place, if it is a key of others, else the closest keys here."""
    *before, key = loc
    known = _keys_at(before)
    siblings = _members(_type_at(before[:-1])) if before else []
    having = [_tag(kind) for kind in siblings if len(siblings) > 1 and key in kind.model_fields]
    if BUILT_IN in having:
        return f"it is of a built-in one, which is given without {'.'.join(map(str, before[:-1]))}.name"
    if having:
        place = ".".join(map(str, before[:-1]))
        return (
            f"set {place}.name too, to one that has it: {', '.join(sorted(having))}; known: {', '.join(sorted(known))}"
        )
    elsewhere = [] if isinstance(key, int) else list(dict.fromkeys(_places_of(key, RunConfig)))
    if elsewhere and not difflib.get_close_matches(str(key), known, cutoff=0.8):
        return f"did you mean {' or '.join(elsewhere[:_MOST])}? known: {', '.join(sorted(known))}"
    return nearest(str(key), known)


def _places_of(key: str, kind: type[BaseModel], place: str = "") -> Iterator[str]:
    """Dotted places of a key below a model, but for those in lists."""
    for name, field in kind.model_fields.items():
        if name == key and place:
            yield f"{place}{name}"
        for member in _members(field.annotation):
            yield from _places_of(key, member, f"{place}{name}.")


def user_path(loc: Sequence[int | str], raw: Any) -> list[int | str]:
    """The error's place as the user wrote it: without the tag of a chosen union member, which pydantic adds."""
    path: list[int | str] = []
    node = raw
    for position, part in enumerate(loc):
        if isinstance(node, str) and part in (node.partition(":")[0], "name"):  # a bare name, short for {name: …}
            node = {}
            continue
        if position and isinstance(node, dict) and part == node.get("name", BUILT_IN):
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
    if "name" not in member.model_fields:
        return BUILT_IN
    annotation = member.model_fields["name"].annotation
    return str(get_args(annotation)[0]) if get_origin(annotation) is Literal else member.__name__


def _quoted(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected_tags", context.get("expected", ""))))


def _short(value: Any) -> str:
    bounded = reprlib.Repr()  # YAML's aliases can turn a few lines into a value larger than memory
    bounded.maxlevel, bounded.maxlist, bounded.maxdict, bounded.maxstring = 4, 20, 20, 200
    text = bounded.repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
