"""The commands for a shipped bundle: verify, predict, benchmark, sign, keygen, bundle export."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgestill.flows.cli.options import Commands
from edgestill.flows.terminal import answer, answer_whole, inert, joined, say

if TYPE_CHECKING:
    from edgestill.export.bundle.predict import Answer, Failure

Bundle = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder or zip of a bundle, or a run, whose bundle is taken.")
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--public-key", metavar="PEM", help="Public key of the expected signer; a bundle without its signature fails."
    ),
]

as_one_file = typer.Typer(help="Pack a bundle into one file.", no_args_is_help=True)


def verify(
    bundle: Bundle, public_key: PublicKey = None,
    digest: Annotated[str | None, typer.Option(help="Expected digest of the bundle, as its run printed it.")] = None,
) -> int:  # fmt: skip
    """Check a bundle's files, and its models' answers here.

    Print every difference; exit code 1 means that there is one.
    """
    from edgestill.export.bundle.verify import verify as check
    from edgestill.flows.bundle_path import find_bundle

    bundle = find_bundle(bundle)
    verdict = check(bundle, _key(public_key), digest)
    ending = f"{bundle}: {verdict.summary}"
    answer(joined([*(f"differs: {line}" for line in verdict.problems), *verdict.facts, ending]))
    return 1 if verdict.problems else 0


def predict(
    bundle: Bundle,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, folders of them, or texts; files of many (.csv, .tsv, .txt); - for standard input.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Format of the model to ask, such as int8. Default: the bundle's own choice.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a csv or tsv file. Default: `path` of images, `sentence` of texts.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.csv", help="Table to write the answers to, a row for each.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the probabilities of all classes, as JSON.")] = False,
    public_key: PublicKey = None,
) -> int:
    """Label images or texts with a bundle, which is checked first.

    An input that cannot be read has a line on standard error; exit code 1 means that there was one among several.
    """
    from edgestill.export.bundle.predict import Failure, predict_each
    from edgestill.export.bundle.read import open_bundle
    from edgestill.flows.bundle_path import find_bundle
    from edgestill.flows.cli.asking import inputs_of
    from edgestill.pipeline.errors import DataError

    _require_writable(out)
    with open_bundle(find_bundle(bundle), _key(public_key)) as opened:
        task = opened.bundle.task
        asked = inputs_of(inputs, task.kind, column)
        found = list(predict_each(opened, asked, model, lambda line: say(line, err=True)))
    failures = [one for one in found if isinstance(one, Failure)]
    if failures and len(found) == 1:
        raise DataError(failures[0].message)
    for failure in failures:
        say(f"failed: {failure.message}", err=True)
    _show(found, task.labels, out, as_json)
    return 1 if failures else 0


def _require_writable(out: Path | None) -> None:
    from edgestill.flows.bundle_path import require_outside_bundles
    from edgestill.pipeline.errors import ConfigError

    if out is not None and out.is_dir():
        raise ConfigError([f"--out: {out} is a folder; name the file to write"])
    if out is not None:
        require_outside_bundles(out)


def _show(found: "list[Answer | Failure]", labels: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    import json

    from edgestill.export.bundle.predict import Answer
    from edgestill.flows.cli.asking import answers_csv
    from edgestill.pipeline.runs.checkpoint import write_atomic

    answers = [one for one in found if isinstance(one, Answer)]
    if out is not None:
        write_atomic(out, answers_csv(found).encode("utf-8", "replace"))
        say(f"wrote {out}: {len(answers):,} answers to {len(found):,} inputs", err=True)
    if as_json:
        shown = [
            {"input": a.input, "label": a.label, "probability": a.probability,
             "classes": [{"label": k, "probability": p} for k, p in zip(labels, a.probabilities, strict=True)]}
            for a in answers
        ]  # fmt: skip
        answer_whole(json.dumps(shown, indent=1))
    elif out is None:
        starts = [f"{inert(one.input, 500)}: " if len(found) > 1 else "" for one in answers]
        lines = zip(starts, answers, strict=True)
        answer(joined(f"{start}{inert(one.label, 500)} {one.probability:.4f}" for start, one in lines))


def benchmark(
    bundle: Bundle,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Array of real examples, as training had them. Default: random ones."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Target of `edgestill target` to measure on. Repeatable. Default: here."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Number of threads of each runtime. Default: 1, or the target's."),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds of timed calls for each format.")] = 3.0,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run files that are programs too (.ort, .xml, .pte): the bundle is yours.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Picture to draw the table to: .svg, .png or .pdf.")
    ] = None,
    public_key: PublicKey = None,
) -> None:
    """Compare a bundle's formats on this machine, or on targets.

    Tell of each format its size, accuracy, agreement with fp32, latency, memory, and the time to its first answer.
    """
    from edgestill.export.benchmark.inputs import inputs_of as inputs_of_bundle
    from edgestill.export.benchmark.measure import Settings
    from edgestill.export.benchmark.measure import benchmark as measure
    from edgestill.export.benchmark.result import Benchmarks
    from edgestill.export.benchmark.text import benchmark_text, benchmarks_text
    from edgestill.export.bundle.read import open_bundle
    from edgestill.export.targets.book import target_of
    from edgestill.flows.bundle_path import find_bundle, require_outside_bundles
    from edgestill.flows.report.drawing.formats import draw_benchmark, require_picture
    from edgestill.flows.targets.benchmarking import benchmark_on

    targets = [target_of(name) for name in dict.fromkeys(target or ())]
    if plot is not None:
        require_picture(plot)
        require_outside_bundles(plot, "--plot")
    with open_bundle(find_bundle(bundle), _key(public_key)) as opened:
        examples, what = inputs_of_bundle(opened.bundle.task, inputs)
        settings = Settings(threads=threads or 1, duration_s=duration)
        tell = partial(say, err=True)
        if targets:
            rows = benchmark_on(opened, targets, examples, what, settings, threads, tell, trust)
            whole = Benchmarks(schema="edgestill.benchmarks/1", targets=rows)
            written, text = whole.model_dump_json(by_alias=True, indent=1), benchmarks_text(rows)
        else:
            rows = (measure(opened, examples, what, settings, tell, trust),)
            written, text = rows[0].model_dump_json(by_alias=True, indent=1), benchmark_text(rows[0])
    answer_whole(written if as_json else text)
    if plot is not None:
        draw_benchmark(rows, plot)
        say(f"wrote {plot}", err=True)


def sign(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a run, whose bundle is signed.")
    ],
    key: Annotated[
        Path, typer.Option("--key", metavar="PEM", help="Private ed25519 key; `edgestill keygen` makes one.")
    ],
) -> None:
    """Sign a bundle: write manifest.sig into its folder."""
    from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE
    from edgestill.export.bundle.read import open_bundle
    from edgestill.export.bundle.sign import sign_manifest
    from edgestill.flows.bundle_path import find_bundle
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.runs.checkpoint import write_atomic

    bundle = find_bundle(bundle)
    if not bundle.is_dir():
        raise ConfigError([f"{bundle} is no folder; sign the bundle's folder, then export it as a file"])
    with open_bundle(bundle) as opened:
        signature, fingerprint = sign_manifest(opened.files[MANIFEST], _read(key))
    write_atomic(bundle / SIGNATURE, signature)
    say(f"signed by the key {fingerprint}: {bundle / SIGNATURE}")


def keygen(
    name: Annotated[
        Path,
        typer.Argument(
            metavar="NAME", help="Name of the files: NAME.pem, the secret key, and NAME.pub.pem, the public one."
        ),
    ],
) -> None:
    """Make an ed25519 key pair to sign bundles with."""
    import os

    from edgestill.export.bundle.sign import make_keys
    from edgestill.pipeline.errors import ConfigError
    from edgestill.pipeline.runs.checkpoint import write_atomic

    private, public = Path(f"{name}.pem"), Path(f"{name}.pub.pem")
    for path in (private, public):
        if path.exists():
            raise ConfigError([f"{path} exists already and may hold a key in use; choose another name"])
    secret, shown = make_keys()
    private.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    write_atomic(public, shown)
    say(f"wrote {private} (keep it secret) and {public}")


@as_one_file.command("export")
def export(
    bundle: Bundle,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write. Default: beside the bundle.")
    ] = None,
    format: Annotated[str, typer.Option("--format", metavar="zip|oci-layout", help="Format of the file.")] = "zip",
) -> None:
    """Write a checked bundle as one file.

    Equal bundles give equal bytes.
    """
    from edgestill.export.bundle.archive import FORMATS, archive
    from edgestill.export.bundle.read import open_bundle
    from edgestill.flows.bundle_path import find_bundle, require_outside_bundles
    from edgestill.pipeline.errors import ConfigError, nearest
    from edgestill.pipeline.runs.checkpoint import write_atomic

    if format not in FORMATS:
        raise ConfigError([f"--format: unknown {format!r}; {nearest(format, FORMATS)}"])
    bundle = find_bundle(bundle)
    if out is None:
        out = bundle.absolute().with_suffix(".zip" if format == "zip" else ".tar")
    if out.is_dir():
        raise ConfigError([f"--out: {out} is a folder; name the file to write"])
    if out.absolute() == bundle.absolute():
        raise ConfigError([f"{bundle} would be overwritten by its own export; name another file with --out"])
    require_outside_bundles(out)
    with open_bundle(bundle) as opened:
        data = archive(opened.files, format, opened.bundle.name, opened.bundle.created)
        digest = opened.manifest.digest
    write_atomic(out, data)
    say(f"wrote {out}, {len(data):,} bytes; the bundle's digest is {digest}")


def _key(path: Path | None) -> bytes | None:
    return None if path is None else _read(path)


def _read(path: Path) -> bytes:
    from edgestill.export.files import read_regular
    from edgestill.pipeline.errors import BundleError, ConfigError

    try:
        return read_regular(path, 100_000)
    except BundleError as error:
        raise ConfigError(error.problems) from None


COMMANDS: Commands = {
    "verify": verify, "predict": predict, "benchmark": benchmark, "sign": sign, "keygen": keygen, "bundle": as_one_file,
}  # fmt: skip
