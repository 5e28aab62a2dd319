"""Bounds on the size and depth of YAML, checked on its parse events before any object is built.

Aliases let a few lines stand for more than memory holds, and nesting lets them exhaust a reader's stack.
"""

import yaml

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.foreign import MAX_CONFIG_BYTES

MAX_DEPTH, MAX_NODES = 50, 100_000  # nodes with every alias expanded


def require_bounded_yaml(text: str, source: str) -> None:
    """Refuse a text that is too long, nests too deep, or expands to too much. Invalid YAML is left to its reader.

    Args:
        source: origin of the text, for the error.

    Raises:
        ConfigError: the text exceeds a bound.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError([f"{source} has {len(text):,} characters; a configuration has {MAX_CONFIG_BYTES:,} at most"])
    known: dict[str, int] = {}  # anchor -> nodes that it stands for
    stack: list[tuple[str | None, int]] = [(None, 0)]  # (anchor, nodes so far) of each open collection
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((event.anchor, 1))
            elif isinstance(event, yaml.CollectionEndEvent):
                _count(stack, known, *stack.pop())
            elif isinstance(event, yaml.ScalarEvent):
                _count(stack, known, event.anchor, 1)
            elif isinstance(event, yaml.AliasEvent):
                _count(stack, known, None, known.get(event.anchor or "", MAX_NODES))  # unknown: within itself, endless
            if len(stack) > MAX_DEPTH:
                raise ConfigError([f"{source} is not YAML that is read here: it nests deeper than {MAX_DEPTH}"])
            if stack[-1][1] > MAX_NODES:
                raise ConfigError([f"{source} stands for more than {MAX_NODES:,} values; its aliases multiply them"])
    except yaml.YAMLError:
        return


def _count(stack: list[tuple[str | None, int]], known: dict[str, int], anchor: str | None, nodes: int) -> None:
    """Add nodes to the innermost open collection, and remember how many an anchor stands for."""
    if anchor is not None:
        known[anchor] = nodes
    inside, so_far = stack[-1]
    stack[-1] = inside, so_far + nodes
