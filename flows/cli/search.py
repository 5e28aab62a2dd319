"""The commands for the search: score, calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Space, long
from edgestill.flows.terminal import say


@long
def score(
    space: Space,
    architectures: Annotated[
        Path, typer.Option(metavar="FILE", help="Text file with one architecture of the space on each line.")
    ],
    data: Annotated[
        Path,
        typer.Option(metavar="FILE.npz", help="Images with labels: the arrays x_train, y_train, x_test and y_test."),
    ],
    out: Annotated[Path, typer.Option(metavar="scores.csv", help="CSV file to write.")],
    scorers: Annotated[str, typer.Option(help="Names of scorers, separated by commas.")] = "diswot,nwot,params",
    teacher: Annotated[
        str, typer.Option(help="Built-in architecture of the teacher; its weights are random.")
    ] = "resnet56",
    batch_size: Annotated[int, typer.Option(min=2, help="Number of training images to score with.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of images and of all random weights.")] = 0,
    draws: Annotated[
        int, typer.Option(min=1, help="Number of random weight draws for each network; a score is the mean over them.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Number of threads for torch; 0 leaves the choice to torch.")] = 0,
) -> None:
    """Score architectures without training them.

    Write a CSV file with a row for each architecture and a column for each scorer.
    """
    from edgestill.flows.score import score_file

    names = [name.strip() for name in scorers.split(",") if name.strip()]
    count = score_file(space, architectures, data, names, out, teacher, batch_size, seed, draws, threads, say)
    say(f"wrote {count} scores to {out}", err=True)


@long
def calibrate(
    space: Space,
    out: Annotated[Path, typer.Option(metavar="DEVICE.json", help="File to write the latency model to.")],
    samples: Annotated[int, typer.Option(min=1, help="Number of students to measure.")] = 60,
    from_csv: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Latencies measured elsewhere: a CSV table, or profiles (files or folders; repeatable).",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Name of the latency column in the table of --from-csv, if it has several.")
    ] = None,
    save_csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file to write the measured latencies to.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="Data whose image shape and classes replace --input-shape and --classes."
        ),
    ] = None,
    input_shape: Annotated[str, typer.Option(help="Shape of an image: channels, height and width.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 10,
    device: Annotated[
        str | None, typer.Option(help="Name of the device. Default: this processor's, or the one in --from-csv.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Target of `edgestill target` to measure on, with its number of threads."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads for ONNX Runtime.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Number of images in a call.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.001, help="Seconds of timed calls for each student.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of students.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of the search space, such as channels=8. Repeatable."),
    ] = None,
) -> None:
    """Fit a latency model for the students of a search space.

    Measure students on this machine or on a target, or read latencies measured elsewhere (--from-csv).
    """
    from edgestill.export.file_timing import ProbeSettings
    from edgestill.export.targets.book import target_of
    from edgestill.flows.fit_device import Inputs, verdict
    from edgestill.flows.fit_device import fit_device as fit
    from edgestill.pipeline.timing.timing import TimingConfig

    timing = TimingConfig(warmup_s=min(0.1, seconds), duration_s=seconds, min_samples=30)
    model = fit(
        space, options or [], Inputs(data, input_shape, classes), out,
        samples=samples, settings=ProbeSettings(timing, threads, batch), seed=seed, from_csv=from_csv or [],
        column=column, device=device, save_csv=save_csv, say=lambda line: say(line, err=True),
        target=None if target is None else target_of(target),
    )  # fmt: skip
    for line in verdict(model):
        say(line, err=line.startswith("warning"))
    say(f"wrote {out}; to search with it, set search.latency={{source: model, model: {out}}}")


COMMANDS: Commands = {"score": score, "calibrate": calibrate}
