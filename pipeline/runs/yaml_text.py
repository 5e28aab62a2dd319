"""YAML as a person means it, the same in files, in `--set` and in a run's config.yaml.

Plain words are read by the core schema of YAML 1.2: `010` is ten, `1e-3` a number, `off`, `1:30` and `2001-02-03` are
words. A field of the configuration may still read a word in its own way (`tune.enabled: off`). A repeated key is
refused, because one of its values would be lost.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from edgestill.pipeline.errors import ConfigError, printable
from edgestill.pipeline.runs.yaml_bounds import require_bounded_yaml

_TAG = "tag:yaml.org,2002:"
_WORDS = {  # core schema, chapter 10.3.2 of YAML 1.2.2
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",  # of YAML 1.1, and in use
}
_MOST_LINES = 5  # that are named for one repeated key
_BASES = {"0o": 8, "0x": 16}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}
    yaml_constructors: dict[Any, Any] = {  # type: ignore[misc]
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(_TAG + name for name in ("null", "bool", "str", "seq", "map")))
    }


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes every string that YAML 1.1 or 1.2 would read as another type."""


for _name, _pattern in _WORDS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, _BASES.get(node.value[:2], 10))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=[a-zA-Z])", "", node.value))  # `.inf`


def _string(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _string)
_Loader.add_constructor(_TAG + "int", _int)
_Loader.add_constructor(_TAG + "float", _float)


def read_yaml(text: str, source: str) -> Any:
    """Return the value of one document.

    Args:
        source: origin of the text, for the error.

    Raises:
        ConfigError: the text is not YAML, nests too deep, expands to too much, or repeats keys: then all of them, each
            with its lines.
    """
    require_bounded_yaml(text, source)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        repeated = [f"{source}, {problem}" for problem in _repeated_keys(node, (), set())]
        value = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ConfigError([f"{source} is not YAML that is read here: it nests too deep"]) from None
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise ConfigError([f"{source} is not YAML: {printable(' '.join(str(error).split()))}"]) from None
    if repeated:
        raise ConfigError(repeated)
    return value


def key_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Return the line of each key and item, by its path, of a text that `read_yaml` took."""
    return dict(_lines(_Loader(text).get_single_node(), (), frozenset()))


def _lines(
    node: yaml.Node | None, path: tuple[str | int, ...], above: frozenset[int]
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Yield paths with lines; a node below itself, by an alias, is not entered again."""
    if id(node) in above or not isinstance(node, yaml.CollectionNode):
        return
    above |= {id(node)}
    for position, item in enumerate(node.value):
        key, value = item if isinstance(item, tuple) else (item, item)
        below = (*path, position if key is value else str(key.value))
        yield below, key.start_mark.line + 1
        yield from _lines(value, below, above)


def write_yaml(value: Any, *, in_one_line: bool = False) -> str:
    """Write the value as YAML that `read_yaml` and readers of YAML 1.1 read back."""
    if in_one_line:
        text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"))
        return text.removesuffix("\n").removesuffix("\n...")
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def comment_in(text: str) -> str | None:
    """Return the comment behind the value, with its `#`; None where there is none."""
    end = 0
    for token in yaml.scan(text, Loader=_Loader):
        if not isinstance(token, yaml.BlockEndToken | yaml.StreamEndToken):
            end = token.end_mark.index
    return text[end:].strip() or None


def _repeated_keys(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _repeated_keys(item, (*path, str(position)), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, list[int]] = {}
        for key, value in node.value:
            name = printable(str(key.value)) if isinstance(key, yaml.ScalarNode) else "?"
            lines.setdefault(name, []).append(key.start_mark.line + 1)
            yield from _repeated_keys(value, (*path, name), seen)
        for name, found in lines.items():
            if len(found) > 1:
                *before, last = map(str, dict.fromkeys(found))
                more = ", …" if len(before) > _MOST_LINES else ""
                where = f"lines {', '.join(before[:_MOST_LINES])}{more} and {last}" if before else f"line {last}"
                times = "twice" if len(found) == 2 else f"{len(found)} times"
                yield f"{where}: {'.'.join((*path, name))} stands {times}, and all but one would be lost; join them"
