"""The site: pages made from the program are whole, links lead somewhere, and a fault ends the strict build."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands_page
import configuration_page
import pytest
import repository_links
import stages_page
from blocks import ROOT
from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError

from edgestill.flows.chain import STAGES
from edgestill.flows.cli.main import COMMANDS
from edgestill.flows.config import RunConfig

OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *ROOT.glob("examples/**/*.md")]


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name]


def test_the_page_of_keys_has_every_key_of_a_run_in_its_part() -> None:
    page = configuration_page.page()
    for part, values in RunConfig().model_dump(mode="json").items():
        section = page.partition(f"\n## `{part}`\n")[2].partition("\n## ")[0] or page
        for key in leaves(values) if isinstance(values, dict) else [part]:
            words = [word for word in key.split(".") if word != "name"]
            places = [".".join(words[start:]) for start in range(len(words))]
            assert not words or any(f"| `{one}` |" in section or f"## `{one}`" in page for one in places), key


def test_every_key_has_words_and_none_is_a_riddle_of_types() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", configuration_page.page(), flags=re.MULTILINE)
    assert len(rows) > 250
    assert {key for key, _, _, words in rows if len(words) < 8} == set()
    assert {key for key, takes, _, _ in rows if re.search(r"typing|Annotated|Field|<class|\bint\b", takes)} == set()


def test_bounds_and_defaults_are_told_as_they_are() -> None:
    page = configuration_page.page().replace("\u00a0", " ")
    assert "| `weight_bits` | `7`, `8` | `7` |" in page
    assert "| `budget.max_params` | whole number, ≥ 1, or `null` | `null` |" in page
    assert "| `seed` | whole number, ≥ 0, < 2,147,483,648 | `0` |" in page


def test_the_page_of_commands_has_every_command_and_option() -> None:
    page = commands_page.page()
    assert set(re.findall(r"^## `edgestill ([\w-]+)", page, flags=re.MULTILINE)) == set(COMMANDS)
    for option in ("--smoke", "--against TEACHER.onnx", "--format", "--cron", "--from-csv FILE"):
        assert f"`{option}" in page


def test_the_stages_are_listed_and_explained_in_their_order() -> None:
    names = [stage.name for stage in STAGES]
    assert re.findall(r"^\| `(\w+)`", stages_page.page(), flags=re.MULTILINE) == names
    explained = (ROOT / "docs/explanation/stages.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", explained, flags=re.MULTILINE) == names


def test_a_link_out_of_the_site_names_a_file_that_is_there() -> None:
    link = "[a package](../../examples/plugin)"
    assert repository_links.rewritten(link, "howto/x.md", "") == "a package (`examples/plugin`)"
    assert repository_links.rewritten(link, "howto/x.md", "https://h/r") == "[a package](https://h/r/examples/plugin)"
    assert repository_links.rewritten("[x](../results/hard.md)", "howto/x.md", "") == "[x](../results/hard.md)"
    with pytest.raises(PluginError, match="there is no examples/plugout"):
        repository_links.rewritten("[a package](../../examples/plugout)", "howto/x.md", "")


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if not re.match(r"[a-z]+:", path):
            found = (page.parent / path) if path else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    return {
        slugify(head, "-") for head in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }


def test_mentions_of_pages_in_the_code_name_pages_that_are_there() -> None:
    folders = ("pipeline", "search", "distill", "export", "flows", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    mentioned = {name for path in files for name in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))}
    assert len(mentioned) > 5
    assert {name for name in mentioned if not (ROOT / name).is_file()} == set()


def built(root: Path) -> "subprocess.CompletedProcess[str]":
    """Build a copy of the site in its own folder, strictly."""
    shutil.copy(ROOT / "mkdocs.yml", root)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(root / "built")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=200)


def test_a_fault_ends_the_strict_build_by_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for path in ROOT.iterdir():
        if path.name not in ("docs", "mkdocs.yml") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    with (tmp_path / "docs/index.md").open("a") as page:
        page.write("\n[gone](howto/gone.md), [no such place](howto/data.md#nowhere)\n")
    (tmp_path / "docs/howto/lost.md").write_text("# Lost\n")
    done = built(tmp_path)
    assert done.returncode != 0
    for fault in ("howto/gone.md", "#nowhere", "howto/lost.md"):
        assert fault in done.stderr
    assert done.stderr.count("WARNING") == 3  # nothing else is wrong
    for page in (tmp_path / "built").rglob("*.html"):
        assert not re.search(
            r'<(?:script|link|img)[^>]+(?:src|href)="?(?:https?:)?//', page.read_text(encoding="utf-8")
        )


def test_names_of_a_table_have_their_line() -> None:
    page = configuration_page.page()
    for table, _ in configuration_page._TABLES.values():
        given_by_name = [name for name in table if name not in ("resnet", "text_transformer", "huggingface")]
        assert [
            name for name in given_by_name if not re.search(rf"^\| `{name}` \| .{{8,}} \|$", page, re.MULTILINE)
        ] == []
