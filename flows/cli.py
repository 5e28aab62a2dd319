"""The command line. A command imports its modules when it is called, so `--help` answers at once.

Exit codes: 0 done, 1 we failed, 2 the user's mistake, 130 interrupted. Errors are one sentence on stderr.
"""

# ruff: noqa: E402
from edgestill.flows.safe_path import leave_out_the_current_folder

leave_out_the_current_folder()  # before the imports: a file there could pose as a module

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgestill.flows.bundle_commands import register as register_bundle_commands
from edgestill.flows.profile_commands import register as register_profile_commands
from edgestill.flows.supervise import supervised
from edgestill.flows.terminal import answer, close_streams, open_streams, say
from edgestill.pipeline.child import environment

if TYPE_CHECKING:
    from edgestill.flows.config.model import RunConfig
    from edgestill.flows.outcome import Outcome
    from edgestill.flows.rank_check import RankCheckResult
    from edgestill.pipeline.runs.rundir import RunDir

_INTERRUPTED = 130
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="edgestill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Any command takes --debug, which shows the traceback of an error.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        answer(f"edgestill {metadata.version('edgestill')}")
        raise typer.Exit


@app.callback()
def edgestill(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and stop.")
    ] = False,
) -> None:
    """Give it a trained classifier and a budget; it gives back a small student that ships."""


Out = Annotated[Path, typer.Option("--out", help="Folder that holds the runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="One plain line a stage.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key, such as search.budget.max_params=50000; repeatable, and of one key the last counts.",
    ),
]
Preset = Annotated[str | None, typer.Option("--preset", help="Start from a built-in configuration; see `presets`.")]
Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; see `init`.")]
ViaPrefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="As a Prefect flow run, or in plain Python. Default: Prefect where PREFECT_API_URL is set.",
    ),
]


@app.command()
def run(
    config: Config = None, preset: Preset = None, settings: Set = None, out: Out = Path("runs"),
    quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Take a teacher to a shipped student: search, tune, distill, export, measure, report."""
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to run: give a CONFIG.yaml, or --preset digits for a first run"])
    _start(load_config(config, preset, settings or []), out, quiet, prefect)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="A run's folder, its name below --out, or `latest`.")],
    out: Out = Path("runs"),
    quiet: Quiet = False,
    prefect: ViaPrefect = None,
) -> None:
    """Go on with a run that was interrupted; what is done is not repeated."""
    from edgestill.flows.prefect import launch
    from edgestill.pipeline.runs.rundir import RunDir, find_run

    path = find_run(run, out)
    if launch.uses_prefect(prefect):
        _summarise(launch.as_flow(None, out, resume=path))
    else:
        with RunDir.open(path) as directory:
            _run_here(directory, quiet)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder, its name below --out, or `latest`.")],
    out: Out = Path("runs"),
) -> None:
    """What a run did, stage by stage, and what it is worth."""
    from edgestill.flows.show import show_run
    from edgestill.pipeline.runs.rundir import RunDir, find_run

    answer(show_run(RunDir.view(find_run(run, out))))


@app.command()
def runs(out: Out = Path("runs")) -> None:
    """All runs, oldest first."""
    from edgestill.flows.show import show_runs

    answer(show_runs(out))


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("edgestill.yaml"),
    preset: Annotated[str, typer.Option("--preset", help="Whose values to start from.")] = "digits",
    settings: Set = None,
) -> None:
    """Write a complete, commented configuration to start from."""
    from edgestill.flows.config import commented_yaml, load_config
    from edgestill.pipeline.errors import ConfigError, command
    from edgestill.pipeline.runs.checkpoint import write_atomic

    if file.exists():
        raise ConfigError([f"{file} exists already; name another file, or remove it first"])
    write_atomic(file, commented_yaml(load_config(None, preset, settings or [], check_files=False)).encode())
    say(f"wrote {file}; {command('run', file)} runs it")


@app.command()
def presets() -> None:
    """The built-in configurations."""
    from edgestill.flows.config import preset_names, preset_text

    width = max(map(len, preset_names()))
    firsts = ((name, preset_text(name).splitlines()[0].lstrip("# ")) for name in preset_names())
    answer("\n".join(f"{name:<{width}}  {first}" for name, first in firsts))


@app.command()
def score(
    space: Annotated[str, typer.Option(help="Search space.")],
    architectures: Annotated[Path, typer.Option(metavar="FILE", help="One architecture a line, in the space's form.")],
    data: Annotated[Path, typer.Option(metavar="FILE.npz", help="x_train, y_train, x_test, y_test.")],
    out: Annotated[Path, typer.Option(metavar="scores.csv", help="Where to write the scores.")],
    scorers: Annotated[str, typer.Option(help="Comma-separated.")] = "diswot,nwot,params",
    teacher: Annotated[str, typer.Option(help="Built-in architecture, random weights.")] = "resnet56",
    batch_size: Annotated[int, typer.Option(min=2, help="Training images to score on.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Draws the batch and all weights.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Of each network's weights; scores are means over them.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Of torch; 0 leaves its choice.")] = 0,
) -> None:
    """Score architectures without training them; one CSV row each."""
    from edgestill.flows.score import score_file

    names = [name.strip() for name in scorers.split(",") if name.strip()]
    count = score_file(space, architectures, data, names, out, teacher, batch_size, seed, draws, threads, say)
    say(f"wrote {count} scores to {out}", err=True)


@app.command("rank-check")
def rank_check(
    config: Config = None, preset: Preset = None, settings: Set = None,
    students: Annotated[
        int | None, typer.Option(min=4, help="To train, spread over the budget; default: rank_check.students, or 12.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each; default: rank_check.epochs.")] = None,
    out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Do the training-free scores rank students on this task? Trains a handful briefly and says; `resume` goes on."""
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to check: give a CONFIG.yaml, or --preset digits for a first look"])
    if students is None:
        given = load_config(config, preset, [*(settings or []), "rank_check.only=false"], check_files=False)
        students = given.rank_check.students or 12
    chosen = [f"rank_check.students={students}", "rank_check.only=true"]
    if epochs is not None:
        chosen.append(f"rank_check.epochs={epochs}")
    loaded = load_config(config, preset, [*(settings or []), *chosen])
    _start(loaded, out, quiet, prefect)


@app.command()
def calibrate(
    space: Annotated[str, typer.Option(help="Search space.")],
    out: Annotated[Path, typer.Option(metavar="DEVICE.json", help="Where to write the latency model.")],
    samples: Annotated[int, typer.Option(min=1, help="Students to measure.")] = 60,
    from_csv: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Latencies measured elsewhere: a table, or profiles (a folder; repeatable)."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of --from-csv, where it has several.")] = None,
    save_csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the measurements.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Takes shape and classes from it.")] = None,
    input_shape: Annotated[str, typer.Option(help="Channels, height, width.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=2)] = 10,
    device: Annotated[str | None, typer.Option(help="Its name; default: this CPU's, or the file's.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images a call.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.001, help="Timed calls of each student.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the students.")] = 0,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="The space's own, such as channels=8.")
    ] = None,
) -> None:
    """Fit a latency model of a space's students: on this machine, or from latencies measured elsewhere."""
    from edgestill.export.file_timing import ProbeSettings
    from edgestill.flows.fit_device import Inputs, verdict
    from edgestill.flows.fit_device import fit_device as fit
    from edgestill.pipeline.timing.timing import TimingConfig

    timing = TimingConfig(warmup_s=min(0.1, seconds), duration_s=seconds, min_samples=30)
    model = fit(
        space, options or [], Inputs(data, input_shape, classes), out,
        samples=samples, settings=ProbeSettings(timing, threads, batch), seed=seed, from_csv=from_csv or [],
        column=column, device=device, save_csv=save_csv, say=lambda line: say(line, err=True),
    )  # fmt: skip
    for line in verdict(model):
        say(line, err=line.startswith("warning"))
    say(f"wrote {out}; search.latency={{source: model, model: {out}}} searches with it")


register_bundle_commands(app)
register_profile_commands(app)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option("--config", help="Default parameters of the deployment.")] = None,
    preset: Preset = None,
    settings: Set = None,
    cron: Annotated[str | None, typer.Option(help="Schedule, such as '0 2 * * *'.")] = None,
    name: Annotated[str, typer.Option(help="Of the deployment.")] = "edgestill",
    out: Out = Path("runs"),
    limit: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    allow: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that runs may read, beside --out and what the configuration names; repeatable."),
    ] = None,
) -> None:
    """Serve the flow from this machine: trigger it in the Prefect UI, by API, or on a schedule."""
    from edgestill.flows.config import RunConfig, load_config

    given = config is not None or preset is not None or bool(settings)
    loaded = load_config(config, preset, settings or []) if given else RunConfig()
    from edgestill.flows.prefect.serve import serve_flow

    serve_flow(loaded, out, name=name, cron=cron, limit=limit, allow=allow or [])


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server and its UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own loopback needs a password.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that the server goes by; repeatable.")
    ] = None,
) -> None:
    """Start a Prefect server with its UI here, where there is none yet."""
    from edgestill.flows.prefect.serve import start_server

    start_server(host, port, allow_host or [])


def main() -> None:
    """Run the `edgestill` command."""
    os.environ.update(environment())  # processes started by libraries import nothing from the current folder either
    open_streams()
    debug = "--debug" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument != "--debug"]
    code = supervised(given, lambda arguments: _guarded(arguments, debug))
    close_streams()
    sys.exit(code)


def _guarded(arguments: Sequence[str], debug: bool) -> int:
    """Run a command; every failure becomes one sentence and an exit code."""
    from edgestill.pipeline.errors import EdgestillError, FailedError

    try:
        result = _call(arguments)
        code = result if isinstance(result, int) else 0
    except typer.Exit as stop:
        code = stop.exit_code
    except _UsageError as error:
        said = io.StringIO()
        error.show(said)
        say(said.getvalue().rstrip("\n"), err=True)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and _is_of_help(error):
            close_streams()
            if isinstance(error, BrokenPipeError):
                return 0
            error = FailedError(f"standard output cannot be written ({error.strerror})")
        say("\n".join(f"error: {problem}" for problem in _sentence(error).split("\n")), err=True)
        return error.exit_code if isinstance(error, EdgestillError) else 2 if _is_of_a_path(error) else 1
    if code == _INTERRUPTED:  # typer returns it for Ctrl-C too
        say("interrupted", err=True)
    return code


def _call(arguments: Sequence[str]) -> Any:
    try:
        return app([_at_home(argument) for argument in arguments], standalone_mode=False)
    except SystemExit as stop:
        if isinstance(stop.__context__, OSError):  # typer takes any broken pipe for its output's
            raise stop.__context__ from None
        raise


def _is_of_help(error: OSError) -> bool:
    """True if the error came from typer printing the help text."""
    return any(frame.f_code.co_name == "echo" for frame, _ in traceback.walk_tb(error.__traceback__))


def _at_home(argument: str) -> str:
    """Expand `~` to the home folder, also in `--out=~/runs`, where a shell does not."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + os.path.expanduser(value)  # noqa: PTH111 - an argument need not be a path


def _is_of_a_path(error: Exception) -> bool:
    """True if the error is about a named path, missing or not accessible; False if, say, the disk failed."""
    kinds = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
    if not isinstance(error, OSError) or error.filename is None:
        return False
    return isinstance(error, kinds) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)


def _sentence(error: Exception) -> str:
    from edgestill.pipeline.environment import environments_fault
    from edgestill.pipeline.errors import EdgestillError, first_line

    if isinstance(error, EdgestillError):
        return str(error)
    if (told := environments_fault(error)) is not None:
        return told
    if isinstance(error, MemoryError):
        return (
            f"there is too little memory here for this ({first_line(error, 'none left')}); free some, or use less data"
        )
    if isinstance(error, OSError):
        way_out = "; name another path" if _is_of_a_path(error) else ""
        return f"{error.strerror or error} ({error.filename}){way_out}" if error.filename else str(error)
    return f"{type(error).__name__}: {first_line(error)} (this is our mistake; --debug shows where)"


def _start(config: "RunConfig", out: Path, quiet: bool, prefect: bool | None) -> None:
    from edgestill.flows import chain
    from edgestill.flows.prefect import launch

    if launch.uses_prefect(prefect):
        _summarise(launch.as_flow(config, out))
    else:
        with chain.new_run(config, out) as directory:
            _run_here(directory, quiet)


def _run_here(directory: "RunDir", quiet: bool) -> None:
    from edgestill.flows.chain import run_configured
    from edgestill.flows.progress import choose_progress
    from edgestill.pipeline.errors import EdgestillError

    try:
        outcome = run_configured(directory, choose_progress(quiet))
    except BaseException as error:
        with contextlib.suppress(EdgestillError, OSError):  # an unreadable manifest must not hide the error
            if directory.manifest.stages:
                say(_how_it_goes_on(directory.root, error), err=True)
        raise
    _summarise(outcome)


def _how_it_goes_on(root: Path, error: BaseException) -> str:
    from edgestill.pipeline.errors import ConfigError, ExportError, command

    line = f"the run is kept: {command('resume', root)} goes on with it"
    if isinstance(error, ConfigError | ExportError):
        line += f"; a setting takes a new run: {command('run', root / 'config.yaml')} --set key=value"
    return line


def _summarise(outcome: "Outcome | RankCheckResult") -> None:
    from edgestill.flows.outcome import Outcome
    from edgestill.flows.show import rank_check_summary, summary

    say(summary(outcome) if isinstance(outcome, Outcome) else rank_check_summary(outcome))


if __name__ == "__main__":
    main()
