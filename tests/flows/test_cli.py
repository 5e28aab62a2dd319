"""The table of commands, and how the help reads."""

import importlib
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer

from edgestill.flows.cli.main import COMMANDS, app, execute, main
from edgestill.flows.cli.options import is_long

ROOT = Path(__file__).resolve().parents[2]
# Openings of a help that reads only behind its flag's or command's name, or is a question.
FRAGMENTS = {"A", "All", "Do", "Is", "It", "Its", "Of", "That", "The", "To", "What", "Where", "Whether", "Whose"}
GROUP = typer.main.get_command(app)
EACH = {name: GROUP.commands[name] for name in COMMANDS} | {
    f"{name} {below}": command
    for name in COMMANDS
    for below, command in getattr(GROUP.commands[name], "commands", {}).items()
}


def test_the_help_lists_the_commands_in_the_tables_order_each_in_a_whole_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert execute(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    names, sentences = zip(*(line.split(maxsplit=1) for line in listed), strict=True)
    assert names == tuple(COMMANDS)
    assert [sentence for sentence in sentences if sentence.endswith("...") or not sentence.endswith(".")] == []


def test_a_current_folder_that_was_removed_is_said(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert execute(["presets"]) == 2
    assert capsys.readouterr().err.startswith("error: the current folder was removed; change to another")


@pytest.mark.parametrize("name", EACH)
def test_each_help_reads_alone(name: str) -> None:
    texts = [EACH[name].help, *(option.help for option in EACH[name].params)]
    assert [text for text in texts if not text or text.split()[0] in FRAGMENTS] == []


def test_the_commands_with_a_process_of_their_own_are_the_marked_ones() -> None:
    assert {name for name, command in COMMANDS.items() if is_long(command)} == {
        "run", "resume", "rank-check", "search", "distill", "export", "score", "calibrate",
    }  # fmt: skip


def test_the_installed_script_calls_main() -> None:
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["edgestill"]
    module, _, function = entry.partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_a_traceback_keeps_nothing_of_the_work_alive_that_the_end_of_the_process_would_wait_for() -> None:
    """As sessions of some libraries, whose threads end with them."""
    code = """
        import sys, threading
        import edgestill.flows.cli.main as main

        class Session:
            def __init__(self):
                self.ended = threading.Event()
                threading.Thread(target=self.ended.wait).start()

            def __del__(self):
                self.ended.set()

        def work(arguments):
            session = Session()
            raise RuntimeError("broken")

        main._call = work
        sys.argv = ["edgestill", "runs", "--debug"]
        main.main()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("RuntimeError: broken\n")
