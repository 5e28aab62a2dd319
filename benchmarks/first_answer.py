"""How long a bundle's run.py takes to its first answer, beyond the interpreter's start and the runtime's import.

    python benchmarks/first_answer.py BUNDLE IMAGE_OR_TEXT [--pairs 21]

Processes take turns: `import onnxruntime` alone, then run.py whole. Prints the medians, their difference, and the
10th and 90th percentile of the differences of neighbours.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LIMIT_MS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("given", help="an image file, or a text")
    parser.add_argument("--pairs", type=int, default=21)
    given = parser.parse_args()
    alone = [sys.executable, "-I", "-c", "import onnxruntime"]
    whole = [sys.executable, "-I", str(given.bundle / "run.py"), given.given]
    pairs = np.array([(milliseconds(alone), milliseconds(whole)) for _ in range(given.pairs)])
    start, answer = np.median(pairs, axis=0)
    low, high = np.quantile(pairs[:, 1] - pairs[:, 0], [0.1, 0.9])
    print(f"interpreter and import {start:.0f} ms, first answer {answer:.0f} ms (medians of {given.pairs})")
    print(f"run.py itself {answer - start:.0f} ms (10 % to 90 %: {low:.0f} to {high:.0f})")
    return 0 if answer - start <= LIMIT_MS else 1


def milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
