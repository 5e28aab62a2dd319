"""What is printed: inert, short, in characters that the stream takes, and never the end of what was done."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import edgestill
from edgestill.flows.cli.main import execute
from edgestill.flows.progress import Forgiving, PlainLines
from edgestill.flows.terminal import Terminal, answer, answer_whole, inert, joined, say, table
from edgestill.pipeline.child import environment
from edgestill.pipeline.errors import FailedError

ROOT = Path(edgestill.__file__).parents[1]
HOSTILE = "a\x1b[2J\x9b31m\u202eb\u2066\u200b\rc\nd\0\u2028e\udcff"  # ESC, C1, bidi, zero width, breaks, a bad byte
SPELT = r"a\x1b[2J\x9b31m\u202eb\u2066\u200b\rc\nd\x00\u2028e\udcff"


def test_what_would_steer_a_terminal_or_break_a_line_is_spelt_out():
    assert inert(HOSTILE) == SPELT
    assert inert("grün, 日本, −9.1 points\N{NO-BREAK SPACE}[1, 2]") == "grün, 日本, −9.1 points [1, 2]"
    assert joined(["one\ntwo", "three"]) == "one\\ntwo\nthree"


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b" * 10**6, "\u202e" * 3000])
def test_a_long_line_is_cut(text):
    assert len(inert(text)) <= 4000
    assert inert(text).endswith("…")
    assert len(inert(text, 40)) <= 80


def test_cells_of_a_table_are_text_and_not_markup():
    _, head, _, row = table(["name", "value"], [["[red]a[/]\n\x1b[2J", "1"]])[:4]
    assert head.split() == ["name", "value"]
    assert row.split() == [r"[red]a[/]\n\x1b[2J", "1"]


def test_no_module_of_flows_prints_but_the_one():
    """Nor do the other packages, whose prints are those of scripts and of children that answer."""
    own = {"flows/terminal.py", "pipeline/child.py", "export/device/worker.py", "export/device/answers.py"}
    own |= {"export/benchmark/child.py", "flows/federation/environment.py", "flows/federation/server.py"}
    own |= {str(path.relative_to(ROOT)) for path in (ROOT / "export" / "bundle" / "scripts").glob("*.py")}
    found = set()
    for package in ("pipeline", "search", "distill", "export", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                is_import = isinstance(node, ast.Import | ast.ImportFrom)
                imported = getattr(node, "module", None) or (node.names[0].name if is_import else "")
                prints = called in {"print", "typer.echo", "typer.secho", "click.echo", "rich.print"}
                writes = called.startswith(("sys.stdout.", "sys.stderr.")) and "isatty" not in called
                is_rich = is_import and imported.split(".")[0] == "rich"
                if prints or writes or is_rich:
                    found.add(str(path.relative_to(ROOT)))
    assert found - own == set()
    assert "flows/terminal.py" in found


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "cp437"])
def test_a_character_that_the_stream_lacks_is_spelt_plainer(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    say("✓ 5× − … 猫 \x1b")
    answer("✓")
    shown = raw.getvalue().decode(encoding)
    expected = {"utf-8": "✓ 5× − … 猫 \\x1b\n✓\n", "ascii": "+ 5x - ... \\u732b \\x1b\n+\n"}
    assert shown == expected.get(encoding, shown)
    assert shown.endswith("✓\n" if encoding == "utf-8" else "+\n")


class _Refusing(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


def test_a_full_disk_loses_a_word_by_the_way_with_a_warning_and_an_answer_with_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", _Refusing(OSError(28, "No space left on device")))
    say("by the way")
    assert capsys.readouterr().err == "warning: standard output cannot be written (No space left on device)\n"
    with pytest.raises(FailedError, match="cannot be written"):
        answer("what was asked")
    with pytest.raises(FailedError, match="cannot be written"):
        answer_whole("{}")


def test_a_reader_that_left_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", _Refusing(BrokenPipeError(32, "Broken pipe")))
    say("one")
    answer("two")
    monkeypatch.setattr(sys, "stdout", None)
    say("three")
    assert capsys.readouterr().err == ""


def test_an_error_that_quotes_a_file_is_inert_one_line_and_short(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text('"\\e[2J\\x9b\\u202e\\nerror: fake": 1\n')
    assert execute(["run", "c.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(c.isprintable() for c in said[:-1])
    assert execute(["show", "\x1b[31m" + "n" * 10_000]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said) < 5000
    assert said[:-1].isprintable()
    assert execute(["show", "--\x1b[31m"]) == 2  # typer's own sentence
    assert "\x1b" not in capsys.readouterr().err


def test_a_progress_that_fails_is_a_caution_and_no_end(capsys):
    def fail(line):
        raise OSError("the terminal is gone")

    progress = Forgiving(PlainLines(fail))
    progress.begin("data", 1, 10)
    progress.tick(1, 2, "note")
    progress.end("data", 1.0, "done", False)
    progress.close()
    assert progress.cautions == ["the run's progress could not be shown to its end (OSError: the terminal is gone)"]


def test_the_live_bar_shows_text_and_not_markup(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "dumb")
    bar = Terminal()
    bar.begin("data", 1, 10)
    bar.tick(1, 2, "[red]\x1b[2J")
    bar.end("data", 1.0, "[bold]x[/]\x1b[2J\nnext", False)
    bar.close()
    said = capsys.readouterr().err
    assert r"[bold]x[/]\x1b[2J\nnext" in said
    assert "\x1b[2J" not in said.replace(r"\x1b[2J", "")


def drawn(width: int) -> str:
    """A live bar, as it is drawn on a terminal of this width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bar = Terminal(console)
    bar.begin("tournament", 10, 12)
    bar.tick(12_345, 100_000, "the best so far has 99.33% on validation, 65,698 parameters")
    bar.close()
    with console.capture() as found:
        console.print(bar._bar.get_renderable())
    return found.get().rstrip()


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (24, ["10/12 tournament"], ["12345/100000"]),
        (40, ["10/12 tournament", "12345/100000"], ["left", "━"]),
        (70, ["10/12 tournament", "12345/100000", "left -:--:--"], ["━"]),
        (80, ["10/12 tournament", "12345/100000", "left -:--:--", "━"], ["0:00:00", "the best"]),
        (200, ["10/12 tournament", "━", "0:00:00 left -:--:--", "65,698 parameters"], []),
    ],
)
def test_a_narrow_bar_leaves_out_whole_columns(width, shown, left_out):
    line = drawn(width)
    assert "\n" not in line
    assert len(line) <= width
    assert "…" not in line.split("left")[0]
    assert [words for words in shown if words not in line] == []
    assert [words for words in left_out if words in line] == []


@pytest.mark.parametrize("width", [40, 70, 80, 200])
def test_a_command_is_not_broken_by_a_narrow_terminal(width):
    out = io.StringIO()
    bar = Terminal(Console(file=out, width=width, force_terminal=True, color_system=None))
    command = f"`edgestill resume {'/a/long/path' * 9}`"
    bar.begin("data", 1, 10)
    bar.say(f"it goes on by {command}")
    bar.end("data", 1.0, f"it goes on by {command}", False)
    bar.close()
    assert out.getvalue().count(command) == 2


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, None])
def test_commands_print_in_any_locale_and_to_a_closed_pipe(locale, tmp_path):
    """A process of its own: streams are set up as the interpreter starts."""
    script = (
        "import os, sys; from edgestill.flows.cli.main import execute;"
        "from edgestill.flows.terminal import close_streams, open_streams, say;"
        "open_streams(); code = execute(['presets']) or execute(['--help']); say('\\u2713 \\u732b');"
        "close_streams(); sys.exit(code)"
    )
    command = [sys.executable, "-c", script]
    own = environment({"PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT), **(locale or {})})
    if locale is not None:
        done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, timeout=100)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.endswith(b"+ \\u732b\n")
        return
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=own, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, timeout=100)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
