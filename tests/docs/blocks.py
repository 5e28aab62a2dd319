"""The blocks of code of the documentation, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = tuple(page for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md") for page in sorted(ROOT.glob(pattern)))
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<excuse>[^\n]+) -->\n\n?)?"
    r"(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`((?:edgestill|python benchmarks/)[^`]*)`")


class Block(NamedTuple):
    """A fenced block: where it stands, its language, the file that it is to be saved as, and why it is not run."""

    page: str
    line: int
    language: str
    title: str | None
    excuse: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages, or those of some languages."""
    found = [block for page in PAGES for block in blocks_of(page)]
    return [block for block in found if not languages or block.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of one page in their order."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("language")) + 1
        yield Block(name, line, *fence.group("language", "title", "excuse", "text"))


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block of a shell, each as its words."""
    whole = block.text.replace("\\\n", " ")
    lines = (line.removeprefix("$ ") for line in whole.splitlines() if block.language == "sh" or line.startswith("$ "))
    return [command for line in lines for command in _split(line)]


def inline_commands() -> list[tuple[str, list[str]]]:
    """Return the commands within sentences that are whole, each with its page."""
    found = []
    for page in PAGES:
        prose = _FENCE.sub("", page.read_text(encoding="utf-8")).replace("\n", " ")
        for command in _INLINE.findall(prose):
            if not re.search(r"…|\[|COMMAND|TABLE", command):
                found.append((str(page.relative_to(ROOT)), shlex.split(command)))
    return found


def _split(line: str) -> Iterator[list[str]]:
    """Split a line at `&&`, `;`, `||`; what a comment says is left out."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in ("&&", "||", ";"):
            yield words
            words = []
        elif word.endswith(";"):
            yield [*words, word[:-1]]
            words = []
        else:
            words.append(word)
    if words:
        yield words
