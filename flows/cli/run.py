"""The commands for runs: run, resume, show, runs."""

from pathlib import Path

from edgestill.flows.cli.options import Commands, Config, Out, Preset, Quiet, Run, Set, ViaPrefect
from edgestill.flows.cli.start import go_on, start
from edgestill.flows.terminal import answer


def run(
    config: Config = None, preset: Preset = None, settings: Set = None, out: Out = Path("runs"),
    quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Make a student that ships, from a teacher and a budget.

    Search a student, tune and distill it, export and measure its files, and write a bundle and a report.
    """
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to run: give a CONFIG.yaml, or --preset digits for a first run"])
    start(load_config(config, preset, settings or []), out, quiet, prefect)


def resume(run: Run, out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None) -> None:
    """Continue an interrupted run; finished stages are not repeated."""
    from edgestill.pipeline.runs.rundir import find_run

    go_on(find_run(run, out), out, quiet, prefect)


def show(run: Run, out: Out = Path("runs")) -> None:
    """Show a run's stages, results and files."""
    from edgestill.flows.show import show_run
    from edgestill.pipeline.runs.rundir import RunDir, find_run

    answer(show_run(RunDir.view(find_run(run, out))))


def runs(out: Out = Path("runs")) -> None:
    """List all runs, oldest first."""
    from edgestill.flows.show import show_runs

    answer(show_runs(out))


COMMANDS: Commands = {"run": run, "resume": resume, "show": show, "runs": runs}
