"""The commands for latency: profile, and report, to show measurements of devices."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgestill.flows.cli.options import Commands, Out
from edgestill.flows.terminal import joined, say

WARMUP_S = 0.2


def profile(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_OR_BUNDLE", help="ONNX file, bundle, or run, whose bundle is taken.")
    ],
    chosen: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|all",
            help="Format of the bundle's model, or `all`. Default: the bundle's own choice.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="TEACHER.onnx", help="Second model, timed in turns with the first, for a fair ratio of both."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Target of `edgestill target` to measure on. Default: this machine."),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="1,8", help="Numbers of inputs in a call, separated by commas.")] = "1",
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="1,2", help="Numbers of threads for ONNX Runtime, separated by commas. Default: 1, or the target's."
        ),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(
            min=0.01, max=86_400, help="Seconds of timed calls for each model, batch size and number of threads."
        ),
    ] = 10.0,
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Number of fresh processes that share the duration.")
    ] = 3,
    warmup: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds of untimed calls before the timed ones.")
    ] = WARMUP_S,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Array of real examples. Default: random ones.")
    ] = None,
    length: Annotated[int, typer.Option(min=0, help="Length of texts in tokens; 0 takes the longest possible.")] = 0,
    cpus: Annotated[
        str | None, typer.Option(metavar="0,1", help="Cores to run on, separated by commas. Default: any.")
    ] = None,
    spinning: Annotated[bool, typer.Option(help="Let waiting threads of ONNX Runtime spin, or sleep.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random examples and of bootstrap intervals.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="JSON file for all samples; a page goes beside it. Default: profile.json, outside of a bundle.",
        ),
    ] = None,
) -> None:
    """Measure a model's latency on this machine, or on a target.

    Time calls in fresh processes, and write every sample with the settings, the machine and the versions.
    """
    import shlex

    from edgestill.export.targets.book import target_of
    from edgestill.flows.bundle_path import is_bundle, require_outside_bundles
    from edgestill.flows.profile import profile as measure
    from edgestill.flows.profile import settings_of

    if out is None:
        out = Path("..", "profile.json") if is_bundle(Path.cwd()) else Path("profile.json")
    require_outside_bundles(out)

    there = None if target is None else target_of(target)
    elsewhere = None if there is None or there.is_here else there
    if elsewhere is not None:
        _require_of_script(against, inputs, cpus, warmup, spinning, seed)
    used = threads or str(1 if there is None else there.threads)
    settings = settings_of(
        batch, used, cpus, duration_s=duration, repeats=repeats, warmup_s=warmup, examples=inputs, length=length,
        spinning=spinning, seed=seed,
    )  # fmt: skip
    again = shlex.join(["edgestill", *(argument for argument in sys.argv[1:] if argument != "--debug")])
    say(measure(model, chosen, against, settings, out, lambda line: say(line, err=True), again, elsewhere))


def _require_of_script(
    against: Path | None, inputs: Path | None, cpus: str | None, warmup: float, spinning: bool, seed: int
) -> None:
    """Refuse options that the script on a device has not."""
    from edgestill.pipeline.errors import ConfigError

    given = {
        "--against": against is not None, "--inputs": inputs is not None, "--cpus": cpus is not None,
        "--warmup": warmup != WARMUP_S, "--no-spinning": not spinning, "--seed": seed != 0,
    }  # fmt: skip
    if any(given.values()):
        named = ", ".join(option for option, is_given in given.items() if is_given)
        raise ConfigError([f"{named}: the measuring script on a target has no such option; leave it out"])


def report(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, its name below --out, or `latest`.")],
    device: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.json",
            help="Profile written by a bundle's profile_device.py or `edgestill profile`. Repeatable.",
        ),
    ] = None,
    out: Out = Path("runs"),
) -> None:
    """Write a run's report again, with latencies of devices."""
    from edgestill.flows.chain import results_of
    from edgestill.flows.config import config_of
    from edgestill.flows.report.again import report_again
    from edgestill.pipeline.runs.find import find_run
    from edgestill.pipeline.runs.rundir import RunDir

    cautions: list[str] = []
    with RunDir.open(find_run(run, out)) as directory:
        page = report_again(directory, results_of(directory, config_of(directory)), device or [], cautions)
    say(joined([*(f"caution: {caution}" for caution in cautions), f"wrote {page}"]))


COMMANDS: Commands = {"profile": profile, "report": report}
