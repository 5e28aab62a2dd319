"""8-bit weights and activations in an ONNX file: a scheme of quantisation, and a file for each calibration method."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgestill.export.calibration import Int8Keys, require_sound
from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.export.formats.base import Files, Format, Source
from edgestill.export.onnx.quantize import FOR_CPU, METHODS, Calibration, Scheme, quantize, quantizer
from edgestill.export.onnx.quicken import quickened
from edgestill.export.onnx.repair import DAMAGE_EXAMPLES, damage_of, repaired
from edgestill.export.onnx.saturating import saturating_runner
from edgestill.export.onnx.saturation import saturable, saturates_here
from edgestill.export.onnx.sessions import RUNTIME, runner
from edgestill.export.run import Run
from edgestill.pipeline.timing.timing import TimingConfig


class Int8(Format):
    """Quantised ONNX file, run by ONNX Runtime on a CPU.

    The scheme for TensorRT makes it slower there than fp32 and no smaller, as the gate then reports; it is the source
    of an engine.
    """

    precision = "int8"
    runtime = RUNTIME
    suffix = ".onnx"
    corrects_bias = True
    Config = Int8Keys

    def __init__(self, name: str, scheme: Scheme) -> None:
        self.name, self._scheme = name, scheme

    def variants(self, source: Source, config: Int8Keys) -> Iterator[tuple[str, Files]]:
        """Yield (method, files) for each configured calibration method."""
        require_sound(source.calibration, source.task)
        asked, bits, correct_s = config.calibration, config.weight_bits, _correct_s(source, config)
        for method in METHODS if asked.method == "auto" else (asked.method,):
            data = quantize(source.onnx, source.calibration, method, asked.percentile, self._scheme, bits, correct_s)
            yield method, {self.suffix: data}

    def build(self, source: Source, config: Int8Keys) -> Files:
        return _nearest_to_fp32(source, self.variants(source, config))

    def repaired(
        self, source: Source, config: Int8Keys, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, dict[str, float]] | None:
        calibration = Calibration(source.calibration, variant, config.calibration.percentile)
        correct_s = _correct_s(source, config)
        with quantizer(source.onnx, calibration, self._scheme, config.weight_bits, correct_s) as made:
            half, examples = config.int8.seconds / 2, source.calibration[:DAMAGE_EXAMPLES]
            damage = damage_of(made, runner(source.onnx)(examples), lambda data: runner(data)(examples), half)
            found = repaired(made, damage, lambda data: holds({self.suffix: data}), half)
        return None if found is None else ({self.suffix: found.made}, found.in_float)

    def quickened(
        self, source: Source, config: Any, variant: str, holds: Callable[[Files], bool]
    ) -> tuple[Files, tuple[str, ...]] | None:
        if self._scheme is not FOR_CPU:  # the other is a source for engines, and always slower on a CPU
            return None
        calibration = Calibration(source.calibration, variant, config.calibration.percentile)
        with quantizer(source.onnx, calibration, self._scheme, config.weight_bits) as made:
            found = quickened(
                made,
                source.onnx.read_bytes(),
                _medians_ms,
                lambda data: holds({self.suffix: data}),
                config.gate.min_speedup,
                config.int8.seconds,
            )
        return None if found is None else ({self.suffix: found.made}, found.in_float)

    def open(self, path: Path, threads: int) -> Run:
        return runner(path, threads)

    def open_exact(self, path: Path, threads: int) -> Run:
        return runner(path, threads, exact=True)

    def saturable(self, path: Path) -> int:
        return len(saturable(path.read_bytes()))

    def elsewhere(self, path: Path, threads: int) -> Run:
        return self.open_exact(path, threads) if saturates_here() else saturating_runner(path.read_bytes(), threads)


def _correct_s(source: Source, config: Int8Keys) -> float:
    """Return the seconds to correct a file's biases in, a quarter of those for all of its repair; 0 if not asked."""
    return config.int8.seconds / 4 if source.correct_bias else 0.0


def _medians_ms(files: Mapping[str, bytes], seconds: float) -> dict[str, float]:
    """Time files in turns on one thread; return the median of each, in ms."""
    timing = TimingConfig(warmup_s=0.05, duration_s=max(seconds, 0.01), min_samples=70)
    timed = time_files(files, ProbeSettings(timing, 1, 1))
    return {name: float(np.median(timing.samples_ms)) for name, timing in timed.items()}


def _nearest_to_fp32(source: Source, variants: Iterable[tuple[str, Files]]) -> Files:
    """Return the files with the logits nearest to fp32's on the calibration examples, by mean absolute difference."""
    built = [files for _, files in variants]
    if len(built) == 1:
        return built[0]
    expected = runner(source.onnx)(source.calibration)
    return min(built, key=lambda files: float(np.abs(runner(files[".onnx"])(source.calibration) - expected).mean()))
