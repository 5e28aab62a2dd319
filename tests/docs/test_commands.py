"""Every command, configuration and piece of Python of the documentation is one that the program takes."""

import argparse
import ast
import importlib
import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from blocks import PAGES, ROOT, Block, blocks, commands, inline_commands

from edgestill.flows.cli.main import app
from edgestill.flows.config import load_config

LANGUAGES = {"sh", "console", "yaml", "python", "toml", "text"}
# Programs that are not ours.
OTHERS = {"cd", "dask", "export", "git", "hf", "here/bin/pip", "optuna", "pip", "pipx", "prefect", "."}
_EXCUSES = 3  # so few may stay

SHELL = [(block, command) for block in blocks("sh", "console") for command in commands(block) if not block.excuse]
OURS = [(block, command) for block, command in SHELL if command[0] == "edgestill"]
SENTENCES = [(place, command) for place, command in inline_commands() if command[0] == "edgestill" and command[1:]]
BENCHMARKS = [(str(block), command) for block, command in SHELL if "benchmarks/" in " ".join(command[:2])]
BENCHMARKS += [(place, command) for place, command in inline_commands() if command[0] == "python"]


def name(one: Any) -> str:
    return " ".join(one)[:90] if isinstance(one, list) else str(one)


class Parsed(Exception):
    """The arguments were read, and the work would begin."""


def test_every_block_names_its_language_and_none_is_indented() -> None:
    assert {str(block): block.language for block in blocks() if block.language not in LANGUAGES} == {}
    indented = re.compile(r"(?:^|\n)(?![-*\d ])[^\n]*\n\n    (?:edgestill|python|pip|make) ")
    assert [page for page in PAGES if indented.search(page.read_text(encoding="utf-8"))] == []


def test_few_blocks_are_excused_and_each_says_why() -> None:
    excuses = [block.excuse for block in blocks() if block.excuse]
    assert len(excuses) <= _EXCUSES
    assert all(len(words) > 10 for words in excuses)


@pytest.mark.parametrize(("block", "command"), OURS, ids=name)
def test_a_command_of_ours_is_one_that_the_command_line_takes(block: Block, command: list[str], tmp_path: Path) -> None:
    given = parsed(command[1:])
    settings = given.get("settings") or ()
    if (settings or given.get("preset")) and not adds_a_plug_in(block.page):
        config = given.get("config")
        path = None if config is None else given_file(block, config.name, tmp_path)
        load_config(path, given.get("preset"), [one.replace("…", "resnet20") for one in settings], check_files=False)


@pytest.mark.parametrize(("page", "command"), SENTENCES, ids=name)
def test_a_command_within_a_sentence_is_there_with_its_options(page: str, command: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    if not command[1].startswith("--"):
        group = group.commands[command[1]]
    known = {option for one in group.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    assert {word.partition("=")[0] for word in command[2:] if word.startswith("--")} <= known


def adds_a_plug_in(page: str) -> bool:
    """True for a page whose commands need a package that it tells the reader to make."""
    return page.startswith("examples/") or any(
        "entry-points" in block.text for block in blocks("toml") if block.page == page
    )


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Parse the arguments as the command line does, without doing the work."""
    group: Any = typer.main.get_command(app)
    words = [word for word in arguments if word != "--debug"]
    above = group.make_context("edgestill", words)
    while True:
        word, command, words = group.resolve_command(above, words)
        if not hasattr(command, "list_commands") or not words:
            try:
                return dict(command.make_context(word, list(words), parent=above).params)
            except typer.Exit:  # --help, --version
                return {}
        group, above = command, command.make_context(word, list(words), parent=above)


def given_file(block: Block, wanted: str, folder: Path) -> Path | None:
    """Return the configuration of this name that lies beside the page or that a page gives; None for a reader's own."""
    beside = (ROOT / block.page).parent / wanted
    if beside.is_file():
        return beside
    text = next((other.text for other in blocks("yaml") if other.title == wanted), None)
    if text is None:
        return None
    (folder / wanted).write_text(text, encoding="utf-8")
    return folder / wanted


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_configuration_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block.text, encoding="utf-8")
    load_config(path, check_files=False)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_piece_of_python_compiles_and_what_it_imports_is_there(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                _import_from(node.module or "", alias.name)


def _import_from(module: str, wanted: str) -> None:
    if not hasattr(importlib.import_module(module), wanted):
        importlib.import_module(f"{module}.{wanted}")


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_piece_of_toml_is_read(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize(("place", "command"), BENCHMARKS, ids=name)
def test_a_benchmark_takes_the_arguments_that_a_page_gives_it(
    place: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / command[1]
    assert script.is_file()
    whole = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any) -> Any:
        whole(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [str(script), *command[2:]])
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    with pytest.raises(Parsed):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(("block", "command"), [one for one in SHELL if one[1][0] != "edgestill"], ids=name)
def test_any_other_command_is_a_known_one(block: Block, command: list[str]) -> None:
    head, *rest = command
    if head.startswith("docs/"):
        assert (ROOT / head).is_file()
    elif head == "make":
        assert rest[0].split()[0] in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif head.endswith("python"):
        _known_script(block, rest)
    else:
        assert head in OTHERS
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = [extra for word in rest for extra in re.findall(r"^(?:edgestill|\.)\[([\w,]+)\]$", word)]
    assert {one for extra in asked for one in extra.split(",")} <= set(extras)


def _known_script(block: Block, arguments: list[str]) -> None:
    first = arguments[0]
    if Path(first).name == "profile_device.py":
        options = re.findall(r'add_argument\("(--[\w-]+)"', (ROOT / "export/bundle/scripts/measure.py").read_text())
        assert {word for word in arguments if word.startswith("--")} <= set(options)
    elif first == "-m":
        assert importlib.util.find_spec(arguments[1])
    elif Path(first).name != "run.py" and not first.startswith("benchmarks/"):
        given = any(other.title == first for other in blocks("python") if other.page == block.page)
        assert given or ((ROOT / block.page).parent / first).is_file()


def test_a_mistake_in_a_command_or_a_configuration_is_found(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["run", "--prest", "digits"])
    with pytest.raises(Exception, match="No such command"):
        parsed(["runn"])
    wrong = Block("page", 1, "yaml", None, None, "search: {bugdet: {}}")
    with pytest.raises(Exception, match="unknown key"):
        test_a_configuration_is_one(wrong, tmp_path)
