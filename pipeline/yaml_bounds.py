"""How much a YAML text becomes, told from its events before anything is made of them.

Aliases let a few lines stand for more than memory holds, and nesting lets them exhaust a reader's stack.
"""

import yaml

from pipeline.errors import ConfigError
from pipeline.foreign import MAX_CONFIG_BYTES

MAX_DEPTH, MAX_NODES = 50, 100_000  # nodes with every alias written out


def require_bounded_yaml(text: str, source: str) -> None:
    """Refuse a text that is too long, nests too deep, or stands for too much; what is no YAML is the reader's to tell.

    Args:
        source: where it is from, for the error.

    Raises:
        ConfigError: it does.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError([f"{source} has {len(text):,} characters; a configuration has {MAX_CONFIG_BYTES:,} at most"])
    known: dict[str, int] = {}  # nodes below an anchor
    stack: list[tuple[str | None, int]] = [(None, 0)]  # (anchor, nodes so far) of what is open
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((event.anchor, 1))
            elif isinstance(event, yaml.CollectionEndEvent):
                _count(stack, known, *stack.pop())
            elif isinstance(event, yaml.ScalarEvent):
                _count(stack, known, event.anchor, 1)
            elif isinstance(event, yaml.AliasEvent):
                _count(stack, known, None, known.get(event.anchor or "", MAX_NODES))  # one within itself is endless
            if len(stack) > MAX_DEPTH:
                raise ConfigError([f"{source} is not YAML that is read here: it nests deeper than {MAX_DEPTH}"])
            if stack[-1][1] > MAX_NODES:
                raise ConfigError([f"{source} stands for more than {MAX_NODES:,} values; its aliases multiply them"])
    except yaml.YAMLError:
        return


def _count(stack: list[tuple[str | None, int]], known: dict[str, int], anchor: str | None, nodes: int) -> None:
    """Add nodes to what is open, and remember how many an anchor stands for."""
    if anchor is not None:
        known[anchor] = nodes
    inside, so_far = stack[-1]
    stack[-1] = inside, so_far + nodes
