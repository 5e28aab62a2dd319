"""The commands for latency: profile, and report, to show measurements of devices."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out
from edgestill.flows.terminal import joined, say


def profile(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_OR_BUNDLE", help="An .onnx file, a bundle, or a run for its bundle.")
    ],
    chosen: Annotated[
        str | None, typer.Option("--model", metavar="NAME|all", help="Of a bundle; default: its own choice.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="TEACHER.onnx", help="Takes turns with it, for a fair ratio.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="1,8", help="Inputs a call.")] = "1",
    threads: Annotated[str, typer.Option(metavar="1,2", help="Of ONNX Runtime.")] = "1",
    duration: Annotated[
        float, typer.Option(min=0.01, max=86_400, help="Seconds of timed calls of a model at a batch and threads.")
    ] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Fresh processes that share the duration.")] = 3,
    warmup: Annotated[float, typer.Option(min=0, max=600, help="Seconds of untimed calls first.")] = 0.2,
    inputs: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Real examples; default: random.")] = None,
    length: Annotated[int, typer.Option(min=0, help="Of texts, in tokens; default: the longest.")] = 0,
    cpus: Annotated[str | None, typer.Option(metavar="0,1", help="Cores to run on; default: any.")] = None,
    spinning: Annotated[bool, typer.Option(help="Whether waiting threads spin.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Draws random examples and bootstraps.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Every sample; the page lies beside it. Default: profile.json here, never among a bundle's own files.",
        ),
    ] = None,
) -> None:
    """Measure a model's latency here, in fresh processes, with everything that a figure must be quoted with."""
    import shlex

    from edgestill.flows.bundle_path import is_bundle, require_outside_bundles
    from edgestill.flows.profile import profile as measure
    from edgestill.flows.profile import settings_of

    if out is None:
        out = Path("..", "profile.json") if is_bundle(Path.cwd()) else Path("profile.json")
    require_outside_bundles(out)

    settings = settings_of(
        batch, threads, cpus, duration_s=duration, repeats=repeats, warmup_s=warmup, examples=inputs, length=length,
        spinning=spinning, seed=seed,
    )  # fmt: skip
    again = shlex.join(["edgestill", *(argument for argument in sys.argv[1:] if argument != "--debug")])
    say(measure(model, chosen, against, settings, out, lambda line: say(line, err=True), again))


def report(
    run: Annotated[str, typer.Argument(help="A finished run's folder, its name below --out, or `latest`.")],
    device: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.json", help="What a bundle's profile_device.py, or `profile`, wrote; repeatable."),
    ] = None,
    out: Out = Path("runs"),
) -> None:
    """Write a run's report once more, with latencies measured on devices."""
    from edgestill.flows.report.again import report_again
    from edgestill.pipeline.runs.rundir import RunDir, find_run

    cautions: list[str] = []
    with RunDir.open(find_run(run, out)) as directory:
        page = report_again(directory, device or [], cautions)
    say(joined([*(f"caution: {caution}" for caution in cautions), f"wrote {page}"]))


COMMANDS: Commands = {"profile": profile, "report": report}
