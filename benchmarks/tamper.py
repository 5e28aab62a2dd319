"""How many random byte flips in a bundle `edgestill verify` finds.

    python benchmarks/tamper.py BUNDLE|--every-format [--flips 10000] [--seed 0] [--sign] [--seconds 600]

Each flip changes one byte of one file to another value (every file in turn, the manifest and, with --sign, a signature
included), verifies the bundle, and puts the byte back. With a zip in BUNDLE's place, bytes of the zip are flipped. With
--every-format the bundle is made: a small student in each format whose library is here. With --sign the flipped bundle
is verified as its signer's, so that files that are programs would be run. Prints a row a file and exits with 1 if a
flip was missed.
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lib.every_format import write_every_format

from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE
from edgestill.export.bundle.sign import make_keys, sign_manifest
from edgestill.export.bundle.verify import verify


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--every-format", action="store_true", help="make a bundle of every format to flip")
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600, help="longest time; the flips may be fewer then")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sign", action="store_true", help="sign it first, by a key of the moment, and verify by it")
    given = parser.parse_args()
    if (given.bundle is None) is not given.every_format:
        parser.error("give a bundle, or --every-format")
    with tempfile.TemporaryDirectory() as place:
        copy, public = _copied(given.bundle, Path(place)), None
        if given.sign and copy.is_dir():
            private, public = make_keys()
            (copy / SIGNATURE).write_bytes(sign_manifest((copy / MANIFEST).read_bytes(), private)[0])
        return flip(copy, given.flips, random.Random(given.seed), given.seconds, public)


def _copied(bundle: Path | None, place: Path) -> Path:
    """Return a bundle that may be spoilt: a copy of the given one, or one that is made."""
    if bundle is None:
        made, absent = write_every_format(place)
        for name, reason in absent.items():
            print(f"without {name}: {reason}")
        return made
    copy = place / "bundle"
    if bundle.is_dir():
        shutil.copytree(bundle, copy)
    else:
        shutil.copyfile(bundle, copy)
    return copy


def flip(bundle: Path, flips: int, rng: random.Random, seconds: float, public: bytes | None) -> int:
    """Flip, verify, put back; gives the exit code."""
    if verify(bundle, public).problems:
        sys.exit(f"{bundle} differs before anything was flipped: {verify(bundle, public).problems[0]}")
    files = sorted(bundle.iterdir()) if bundle.is_dir() else [bundle]
    whole = {path: path.read_bytes() for path in files}
    tried: Counter[str] = Counter()
    found: Counter[str] = Counter()
    start = time.perf_counter()
    for path in itertools.islice(itertools.cycle(files), flips):
        flipped = bytearray(whole[path])
        flipped[rng.randrange(len(flipped))] ^= rng.randrange(1, 256)
        path.write_bytes(flipped)
        tried[path.name] += 1
        found[path.name] += bool(verify(bundle, public).problems)
        path.write_bytes(whole[path])
        if time.perf_counter() - start > seconds:
            break
    took = time.perf_counter() - start
    print("| file | bytes | flips | found |\n|---|---|---|---|")
    for path in files:
        print(f"| {path.name} | {len(whole[path]):,} | {tried[path.name]:,} | {found[path.name]:,} |")
    print(f"\n{found.total():,} of {tried.total():,} found, {1000 * took / tried.total():.1f} ms each")
    return 0 if found.total() == tried.total() else 1


if __name__ == "__main__":
    sys.exit(main())
