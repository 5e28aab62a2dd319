"""The commands for the search: score, rank-check, calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Config, Out, Preset, Quiet, Set, Space, ViaPrefect
from edgestill.flows.cli.start import start
from edgestill.flows.terminal import say


def score(
    space: Space,
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
    start(loaded, out, quiet, prefect)


def calibrate(
    space: Space,
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
    from edgestill.flows.calibrate import Inputs, verdict
    from edgestill.flows.calibrate import calibrate as fit
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


COMMANDS: Commands = {"score": score, "rank-check": rank_check, "calibrate": calibrate}
