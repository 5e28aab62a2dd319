"""Links from a page to files of the repository outside of docs/, which the site does not hold."""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>\.\.?/[^)\s#]*)\)")
ROOT = Path(__file__).parents[2]


def rewritten(markdown: str, page: str, repository: str) -> str:
    """Point links that leave docs/ to the repository; where the site knows no address of it, their text stays.

    Args:
        markdown: text of the page.
        page: its path below docs/.
        repository: address of the repository's files, or nothing.

    Raises:
        PluginError: there is no such file.
    """

    def replaced(link: re.Match[str]) -> str:
        path = os.path.normpath(PurePosixPath("docs", page).parent / link["target"])
        if path.startswith("docs/") or link["target"].startswith("../" * 9):
            return link[0]
        if not (ROOT / path).exists():
            raise PluginError(f"{page}: there is no {path} in the repository")
        if repository:
            return f"[{link['text']}]({repository.rstrip('/')}/{path})"
        return link["text"] if path in link["text"] else f"{link['text']} (`{path}`)"

    return _LINK.sub(replaced, markdown)
