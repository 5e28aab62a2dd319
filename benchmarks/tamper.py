"""How many random byte flips in a bundle `edgestill verify` finds.

    python benchmarks/tamper.py BUNDLE [--flips 10000] [--seed 0] [--sign]

Each flip changes one byte of one file to another value (every file in turn, the manifest and, with --sign, a signature
included), verifies the bundle, and puts the byte back. With a zip in BUNDLE's place, bytes of the zip are flipped.
Prints a row a file and exits with 1 if a flip was missed.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edgestill.export.bundle.manifest import MANIFEST, SIGNATURE
from edgestill.export.bundle.sign import make_keys, sign_manifest
from edgestill.export.bundle.verify import verify


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sign", action="store_true", help="sign it first, by a key of the moment")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "bundle"
        if given.bundle.is_dir():
            shutil.copytree(given.bundle, copy)
            if given.sign:
                (copy / SIGNATURE).write_bytes(sign_manifest((copy / MANIFEST).read_bytes(), make_keys()[0])[0])
        else:
            shutil.copyfile(given.bundle, copy)
        return flip(copy, given.flips, random.Random(given.seed))


def flip(bundle: Path, flips: int, rng: random.Random) -> int:
    """Flip, verify, put back; gives the exit code."""
    if verify(bundle).problems:
        sys.exit(f"{bundle} differs before anything was flipped: {verify(bundle).problems[0]}")
    files = sorted(bundle.iterdir()) if bundle.is_dir() else [bundle]
    whole = {path: path.read_bytes() for path in files}
    tried: Counter[str] = Counter()
    found: Counter[str] = Counter()
    start = time.perf_counter()
    for number in range(flips):
        path = files[number % len(files)]
        flipped = bytearray(whole[path])
        flipped[rng.randrange(len(flipped))] ^= rng.randrange(1, 256)
        path.write_bytes(flipped)
        tried[path.name] += 1
        found[path.name] += bool(verify(bundle).problems)
        path.write_bytes(whole[path])
    seconds = time.perf_counter() - start
    print("| file | bytes | flips | found |\n|---|---|---|---|")
    for path in files:
        print(f"| {path.name} | {len(whole[path]):,} | {tried[path.name]:,} | {found[path.name]:,} |")
    print(f"\n{found.total():,} of {flips:,} found, {1000 * seconds / flips:.1f} ms each")
    return 0 if found.total() == flips else 1


if __name__ == "__main__":
    sys.exit(main())
