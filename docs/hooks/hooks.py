"""Hooks of the site: pages made from the program, and links to the repository."""

import os
from typing import Any

os.environ["EDGESTILL_PLUGINS"] = "none"  # pages name what is edgestill's own

import commands_page
import configuration_page
import faults_page
import repository_links
import stages_page
from mkdocs.structure.files import File, Files

PAGES = {
    "reference/configuration.md": configuration_page.page,
    "reference/commands.md": commands_page.page,
    "reference/stages.md": stages_page.page,
    "reference/faults.md": faults_page.page,
}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are made from the program."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Treat links that leave docs/."""
    return repository_links.rewritten(markdown, page.file.src_uri, config.extra.get("repository", ""))
