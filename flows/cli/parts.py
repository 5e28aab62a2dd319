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
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|BUNDLE|MODEL.onnx",
            help="Folder of a run, its name below --out, or `latest`; or a bundle or an ONNX file.",
        ),
    ],
    formats: Annotated[
        str | None,
        typer.Option(metavar="fp32,int8,…", help="Names of formats, separated by commas. Default: the run's."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Array of real examples, to calibrate a bundle's or ONNX file's INT8."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="New folder for a bundle's or ONNX file's formats. Default: NAME-formats."),
    ] = None,
    settings: Set = None, out: Out = Path("runs"), quiet: Quiet = False, prefect: ViaPrefect = None,
) -> None:  # fmt: skip
    """Export a run, a bundle or an ONNX file to more formats.

    Settings that a run's finished stages have read make a new run, with the stages before them. A bundle or ONNX file
    stays as it is: its formats go to a folder of their own, each compared with the fp32 file.
    """
    from edgestill.pipeline.errors import ConfigError

    if is_model(Path(run)):
        if settings:
            raise ConfigError(["--set changes a run's settings, and this is none; give --formats and --inputs"])
        _of_model(Path(run), formats, inputs, to)
        return
    for option, value in (("--inputs", inputs), ("--to", to)):
        if value is not None:
            raise ConfigError([f"{option} is for a bundle or an ONNX file; a run has its own examples and folder"])
    _further("export", run, "export.formats", formats, settings, out, quiet, prefect)


def is_model(path: Path) -> bool:
    """True for an ONNX file, or the folder or zip of a bundle."""
    from edgestill.flows.bundle_path import is_bundle

    return path.suffix in (".onnx", ".zip") or is_bundle(path)


def _of_model(path: Path, formats: str | None, inputs: Path | None, to: Path | None) -> None:
    from pydantic import ValidationError

    from edgestill.export.config import ExportConfig
    from edgestill.export.from_onnx import checked_model, export_onnx, lines_of
    from edgestill.flows.terminal import answer, say
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.frozen import first_problem

    if formats is None:
        raise ConfigError(["name the formats to make with --formats, such as --formats ort_fp32,int8"])
    try:
        config = ExportConfig.model_validate({"formats": [name.strip() for name in formats.split(",")]})
    except ValidationError as error:
        raise ConfigError([f"--formats: {first_problem(error)}"]) from None
    data, task, examples = checked_model(path, inputs)
    folder = to if to is not None else Path(f"{path.absolute().name.removesuffix(path.suffix)}-formats")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError([f"{folder} is there already and not empty; name another folder with --to"])
    folder.mkdir(parents=True, exist_ok=True)
    answer("\n".join(lines_of(export_onnx(data, task, examples, config, folder))))
    say(f"wrote {folder}", err=True)


def _further(
    name: str, run: str, key: str, values: str | None, settings: list[str] | None, out: Path, quiet: bool,
    prefect: bool | None,
) -> None:  # fmt: skip
    from edgestill.flows.chain import LAST
    from edgestill.flows.prefect import launch
    from edgestill.flows.reconfigure import going_on
    from edgestill.flows.runner import new_run
    from edgestill.flows.terminal import say
    from edgestill.pipeline.runs.find import find_run

    found = find_run(run, out)
    given = [*([f"{key}=[{values}]"] if values else []), *(settings or [])]
    if launch.uses_prefect(prefect):
        begun = str(found.absolute())
        as_flow(lambda flows: getattr(flows, name)(begun, str(out.absolute()), None, given))
        return
    with going_on(found, given, new_run) as directory:
        if directory.root != found:
            say(f"a finished stage of {found} has read these settings; the new run is {directory.root}", err=True)
        run_here(directory, quiet, last=LAST[name])


COMMANDS: Commands = {"search": search, "distill": distill, "export": export}
