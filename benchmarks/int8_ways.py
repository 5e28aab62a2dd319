"""INT8 of students that it breaks as a whole, by each way to save it: accuracy, and the layers left in float.

    python benchmarks/int8_ways.py [--students 5] [--spreads 3000] [--seconds 60]

Students are those of `peers/spread_mobile.py`: depthwise, their channels spread after some convolutions, and untrained
but for the last layer. Each way makes the file on 256 images and judges it on 1,000; accuracy is of 2,000 others, with
the 95 % interval of the paired difference from fp32's. `plain` is the whole network in INT8, `equalize` and
`correct_bias` are the settings of `export.int8`, and + repair leaves layers in float.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peers.spread_mobile import SpreadMobile, fitted, task

from edgestill.export.build import Folder, Reference, source_of, try_format
from edgestill.export.calibration import CalibrationConfig, Int8Config
from edgestill.export.config import ExportConfig
from edgestill.export.conformance import tinted
from edgestill.export.evaluate import Answers, answers_of
from edgestill.export.formats import FORMATS
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.result import ConvertedModel
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.training.metrics import paired_difference

PLACES = ((1,), (0,), (2,), (0, 2), (3,))
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"repair": "off"},
    "correct_bias": {"repair": "off", "correct_bias": True},
    "equalize": {"repair": "off", "equalize": True},
    "equalize, correct_bias": {"repair": "off", "equalize": True, "correct_bias": True},
    "repair": {},
    "equalize, correct_bias, repair": {"equalize": True, "correct_bias": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--students", type=int, default=5, choices=range(1, len(PLACES) + 1))
    parser.add_argument("--spreads", type=float, nargs="+", default=[3000.0], help="largest over smallest channel")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time to look for layers")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| spread | student | by | accuracy | over fp32, points | taken | in float |\n|---|---|---|---|---|---|---|")
    for spread in given.spreads:
        for seed, at in enumerate(PLACES[: given.students]):
            for line in _rows(SpreadMobile(seed, at, spread), given.seconds):
                print(f"| {spread:g} | {seed} | {line} |", flush=True)


def _rows(student: SpreadMobile, seconds: float) -> Iterator[str]:
    """Yield a line for fp32 and for each way."""
    network, test = fitted(student), tinted(2000, 9, "test")
    splits: Any = SimpleNamespace(
        validation=tinted(1000, 2, "validation"), reference=tinted(256, 3, "reference"), task=task()
    )
    with tempfile.TemporaryDirectory() as place:
        fp32 = Path(place, "student.onnx")
        fp32.write_bytes(to_onnx(network, splits.task.inputs, 20))
        expected = answers_of(runner(fp32), test)
        yield f"fp32 | {expected.metrics.accuracy:.2%} | | | "
        for name, settings in WAYS.items():
            int8 = Int8Config(seconds=seconds, **settings)
            config = ExportConfig(calibration=CalibrationConfig(method="minmax"), int8=int8)
            yield f"{name} | {_row(_made(network, fp32, splits, config), Path(place), expected, test)}"


def _made(network: Any, fp32: Path, splits: Any, config: ExportConfig) -> ConvertedModel:
    """Make the INT8 file beside the fp32 one."""

    def write(file: str, data: bytes) -> Path:
        fp32.with_name(file).write_bytes(data)
        return fp32.with_name(file)

    reference = Reference(fp32, answers_of(runner(fp32), splits.validation))
    source = source_of(network, fp32, splits, config)
    made = try_format(FORMATS["int8"], source, reference, splits, config, Folder(fp32.parent, write))
    assert not isinstance(made, str), made
    return made


def _row(made: ConvertedModel, place: Path, expected: Answers, test: ImageSplit) -> str:
    found = answers_of(FORMATS["int8"].open(place / made.path, 1), test)
    lost, gained = (int((a & ~b).sum()) for a, b in ((expected.right, found.right), (found.right, expected.right)))
    low, high = (100 * end for end in paired_difference(lost, gained, len(test)))
    over = 100 * (gained - lost) / len(test)
    taken = ", ".join(word for word in ("equalized", "bias_corrected") if getattr(made, word))
    return f"{found.metrics.accuracy:.2%} | {over:+.2f} [{low:+.2f}, {high:+.2f}] | {taken} | {len(made.in_float)}"


if __name__ == "__main__":
    main()
