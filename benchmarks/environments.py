"""Do the formats of an extra work in a clean environment made for it: install, conformance, what that took.

    python benchmarks/environments.py [--extras litert executorch] [--folder /tmp/edgestill-environments] [--keep]

Each extra gets an environment with edgestill and nothing else beside it, with the torch of this one. The checks are
those of every format (`edgestill.export.conformance`): fp32 within 1e-5 of the largest logit of torch's, smaller ones
within their precision; a file that is made and not run here has those that need no run. Prints a row an environment,
with the minutes and megabytes it took, and a row a format, and exits with 1 if one is missing or fails.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORMATS = {
    "litert": ("litert", "litert_fp16", "litert_int8", "litert_w8", "litert_w8a16"),
    "executorch": ("executorch", "executorch_int8"),
    "coreml": ("coreml", "coreml_w8"),
    "openvino": ("openvino", "openvino_fp16", "openvino_int8", "openvino_w8"),
}
_CHECK = """
import sys, time
from edgestill.export.conformance import CHECKS
from edgestill.export.formats import FORMATS
from edgestill.pipeline.conformance.suite import NotHereError
form = FORMATS[sys.argv[1]]
if form.missing() and not form.is_made_unrun():
    sys.exit(form.missing())
start, left_out = time.perf_counter(), ""
for check in CHECKS:
    try:
        check(form)
    except NotHereError as reason:
        left_out = f"; {check.__name__}: {reason}"
print(f"{time.perf_counter() - start:.1f} s{left_out}")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extras", nargs="+", default=["litert", "executorch"], choices=list(FORMATS))
    parser.add_argument("--folder", type=Path, default=None, help="of the environments; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the environments, and take those that are there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="edgestill-environments-"))
    print("| extra | format | checks |\n|---|---|---|")
    try:
        return max(_tried(extra, folder / extra, given.keep) for extra in given.extras)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _tried(extra: str, place: Path, keep: bool) -> int:
    python, start = place / "bin" / "python", time.perf_counter()
    if not (keep and python.exists()):
        venv.create(place, with_pip=True, clear=True)
        torch = f"torch=={metadata.version('torch')}"
        install = [str(python), "-m", "pip", "install", "--quiet", torch, f"{ROOT}[{extra}]"]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            print(f"| {extra} | | not installed: {_last(done.stderr)} |", flush=True)
            return 1
    megabytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    print(
        f"| {extra} | | installed in {(time.perf_counter() - start) / 60:.1f} minutes, {megabytes:,.0f} MB |",
        flush=True,
    )
    worst = 0
    for name in FORMATS[extra]:
        done = subprocess.run([str(python), "-I", "-c", _CHECK, name], capture_output=True, text=True)
        worst = max(worst, done.returncode)
        told = f"pass, {_last(done.stdout)}" if done.returncode == 0 else _last(done.stderr)
        print(f"| {extra} | {name} | {told} |", flush=True)
    return min(worst, 1)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]


if __name__ == "__main__":
    sys.exit(main())
