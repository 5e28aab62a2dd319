"""The commands for parts of the chain: search, and distill and export, which go on from a run."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Config, Out, Preset, Quiet, Run, Set, ViaPrefect, long
from edgestill.flows.cli.run import as_flow, run_here, start


@long
def search(
    config: Config = None, preset: Preset = None, settings: Set = None, out: Out = Path("runs"),
    quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Search the student, and no more.

    `edgestill distill`, `export` and `resume` go on from the run.
    """
    from edgestill.flows.chain import LAST
    from edgestill.flows.config import load_config
    from edgestill.pipeline.errors import ConfigError

    if config is None and preset is None and not settings:
        raise ConfigError(["nothing to search for: give a CONFIG.yaml, or --preset digits for a first look"])
    start(load_config(config, preset, settings or []), out, quiet, prefect, LAST["search"])


@long
def distill(
    run: Run,
    methods: Annotated[
        str | None,
        typer.Option(metavar="kd,…", help="Names of distillation methods, separated by commas. Default: the run's."),
    ] = None,
    settings: Set = None, out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Tune and distill the student of a run.

    Settings that its finished stages have read make a new run, with the stages before them.
    """
    _further("distill", run, "distill.methods", methods, settings, out, quiet, prefect)


@long
def export(
    run: Run,
    formats: Annotated[
        str | None,
        typer.Option(metavar="fp32,int8,…", help="Names of formats, separated by commas. Default: the run's."),
    ] = None,
    settings: Set = None, out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Export the student of a run.

    Settings that its finished stages have read make a new run, with the stages before them.
    """
    _further("export", run, "export.formats", formats, settings, out, quiet, prefect)


def _further(
    name: str, run: str, key: str, values: str | None, settings: list[str] | None, out: Path, quiet: bool,
    prefect: bool | None,
) -> None:  # fmt: skip
    from edgestill.flows.chain import LAST
    from edgestill.flows.prefect import launch
    from edgestill.flows.reconfigure import going_on
    from edgestill.flows.terminal import say
    from edgestill.pipeline.runs.find import find_run

    found = find_run(run, out)
    given = [*([f"{key}=[{values}]"] if values else []), *(settings or [])]
    if launch.uses_prefect(prefect):
        begun = str(found.absolute())
        as_flow(lambda flows: getattr(flows, name)(begun, str(out.absolute()), None, given))
        return
    with going_on(found, given) as directory:
        if directory.root != found:
            say(f"a finished stage of {found} has read these settings; the new run is {directory.root}", err=True)
        run_here(directory, quiet, last=LAST[name])


COMMANDS: Commands = {"search": search, "distill": distill, "export": export}
