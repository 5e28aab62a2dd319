"""INT8 of the same students by this package, ONNX Runtime's own tool and NNCF: size, accuracy, latency, time of work.

    python benchmarks/peers/formats.py [--students 5] [--seconds 2]

Students are depthwise and untrained but for the last layer; a whole network in INT8 loses its accuracy, as the channels
after some of their convolutions differ thousandfold. All are calibrated on the same 256 images and keep, where they
look at it, at most 0.5 points less than fp32 on the same 1,000 validation images; accuracy is of 2,000 others. Latency
is of one image on one thread, each file in its own runtime, in turns with that runtime's fp32. Olive is asked for its
static quantisation where it is installed (`olive-ai`, in an environment of its own).
"""

import argparse
import importlib.util
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from spread_mobile import SpreadMobile, fitted, task

from edgestill.export.build import Folder, Reference, source_of, try_format
from edgestill.export.calibration import Int8Config
from edgestill.export.config import ExportConfig
from edgestill.export.conformance import tinted
from edgestill.export.evaluate import answers_of
from edgestill.export.formats import FORMATS
from edgestill.export.formats.openvino import load_openvino, without_telemetry
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.run import Run
from edgestill.pipeline.timing.latency_statistics import paired_ratio
from edgestill.pipeline.timing.timing import TimingConfig, time_interleaved
from edgestill.pipeline.torchvision_compat import repair

PLACES = ((1,), (0,), (2,), (0, 2), (3,))
ALLOWED = 0.005
Made = tuple[Path, Run]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--students", type=int, default=5, choices=range(1, len(PLACES) + 1))
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed calls, a file")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    columns = ("student", "by", "bytes", "accuracy", "fp32's", "p50 ms", "times fp32's speed", "s of work")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for seed, at in enumerate(PLACES[: given.students]):
        for line in rows(seed, at, given.seconds):
            print(line, flush=True)


def rows(seed: int, at: tuple[int, ...], seconds: float) -> list[str]:
    """Return a line for each tool."""
    network, test, lines = fitted(SpreadMobile(seed, at)), tinted(2000, 9, "test"), []
    splits = SimpleNamespace(
        validation=tinted(1000, 2, "validation"), reference=tinted(256, 3, "reference"), task=task()
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fp32 = folder / "student.onnx"
        fp32.write_bytes(to_onnx(network, splits.task.inputs, 20))
        plain = {"onnxruntime": runner(fp32), "openvino": FORMATS["openvino"].open(_as_ir(fp32, folder), 1)}
        expected = answers_of(plain["onnxruntime"], test).metrics.accuracy
        single = np.ascontiguousarray(test.images[:1].numpy())
        for name, runtime, make in _tools():
            begun = time.perf_counter()
            path, run = make(network, fp32, splits, folder)
            worked = time.perf_counter() - begun
            accuracy = answers_of(run, test).metrics.accuracy
            timing = TimingConfig(warmup_s=0.2, duration_s=seconds)
            runs = {"fp32": plain[runtime], "int8": run}
            timed = time_interleaved({key: lambda call=call: call(single) for key, call in runs.items()}, timing)
            ratio, (low, high) = paired_ratio(timed["fp32"].samples_ms, timed["int8"].samples_ms)
            size = sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*"))
            shown = f"{size:,} | {accuracy:.2%} | {expected:.2%} | {timed['int8'].percentile(50):.4f}"
            lines.append(f"| {seed} | {name} | {shown} | {ratio:.2f} [{low:.2f}, {high:.2f}] | {worked:.1f} |")
    return lines


def ours(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """This package's `int8`, repaired where the gate asks for it."""
    return _ours(ExportConfig(), "ours", network, fp32, splits, folder)


def ours_with_all(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """This package's `int8`, with ranges equalised and biases corrected before the repair."""
    config = ExportConfig(int8=Int8Config(equalize=True, correct_bias=True))
    return _ours(config, "all", network, fp32, splits, folder)


def _ours(config: ExportConfig, stem: str, network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    def write(name: str, data: bytes) -> Path:
        (folder / name.replace("student.", f"{stem}.")).write_bytes(data)
        return folder / name.replace("student.", f"{stem}.")

    reference = Reference(fp32, answers_of(runner(fp32), splits.validation))
    source = source_of(network, fp32, splits, config)
    made = try_format(FORMATS["int8"], source, reference, splits, config, Folder(folder, write))
    assert not isinstance(made, str), made
    return folder / made.path, FORMATS["int8"].open(folder / made.path, 1)


def onnxruntimes_own(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """ONNX Runtime's `quantize_static` with its own defaults, after its own preparation."""
    from onnxruntime import quantization as ort

    class Examples(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(splits.reference.images[:].numpy()[:, None])

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._left, None)
            return None if image is None else {"images": image}

    prepared, target = folder / "prepared.onnx", folder / "tool.onnx"
    ort.quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    ort.quantize_static(prepared, target, Examples())
    return target, runner(target)


def olive(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """Olive's `OnnxStaticQuantization` with its own defaults."""
    repair()  # Olive imports it by way of torchmetrics
    from olive.data.config import DataComponentConfig, DataConfig
    from olive.data.registry import Registry
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.quantization import OnnxStaticQuantization

    examples = [({"images": image}, 0) for image in splits.reference.images[:].numpy()]
    Registry.register_dataset("reference_images")(lambda **settings: examples)
    data = DataConfig(name="reference", load_dataset_config=DataComponentConfig(type="reference_images"))
    quantization = create_pass_from_dict(OnnxStaticQuantization, {"data_config": data}, disable_search=True)
    made = quantization.run(ONNXModelHandler(str(fp32)), str(folder / "olive"))
    return Path(made.model_path), runner(Path(made.model_path))


def nncf(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """NNCF's `quantize` with its own defaults."""
    return _by_nncf(fp32, splits, folder, "nncf", lambda library, model, examples: library.quantize(model, examples))


def nncf_to_accuracy(network: Any, fp32: Path, splits: Any, folder: Path) -> Made:
    """NNCF's `quantize_with_accuracy_control`, which takes layers back until the accuracy holds."""

    def quantize(library: Any, model: Any, examples: Any) -> Any:
        validation = list(zip(splits.validation.images[:].numpy(), splits.validation.targets.tolist(), strict=True))

        def accuracy(compiled: Any, data: Iterable[Any]) -> float:
            right = [int(np.argmax(compiled(image[None])[0]) == target) for image, target in data]
            return float(np.mean(right))

        data = library.Dataset(validation, lambda item: item[0][None])
        drop = {"max_drop": ALLOWED, "drop_type": library.DropType.ABSOLUTE}
        return library.quantize_with_accuracy_control(model, examples, data, accuracy, **drop)

    return _by_nncf(fp32, splits, folder, "controlled", quantize)


def _by_nncf(fp32: Path, splits: Any, folder: Path, stem: str, quantize: Callable[[Any, Any, Any], Any]) -> Made:
    openvino = load_openvino()
    with without_telemetry():
        import nncf as library
    model = openvino.Core().read_model(fp32)
    examples = library.Dataset(list(splits.reference.images[:].numpy()), lambda image: image[None])
    path = folder / f"{stem}.xml"
    openvino.save_model(quantize(library, model, examples), path)
    return path, FORMATS["openvino_int8"].open(path, 1)


def _as_ir(fp32: Path, folder: Path) -> Path:
    openvino = load_openvino()
    openvino.save_model(openvino.Core().read_model(fp32), folder / "plain.xml", compress_to_fp16=False)
    return folder / "plain.xml"


Tool = tuple[str, str, Callable[[Any, Path, Any, Path], Made]]


def _tools() -> list[Tool]:
    """Return name, runtime and maker of each tool that is here."""
    found: list[Tool] = [
        ("edgestill", "onnxruntime", ours),
        ("edgestill, equalize, correct_bias", "onnxruntime", ours_with_all),
        ("ONNX Runtime", "onnxruntime", onnxruntimes_own),
        ("NNCF", "openvino", nncf),
        ("NNCF, accuracy control", "openvino", nncf_to_accuracy),
    ]
    if importlib.util.find_spec("olive") is not None:
        found.insert(3, ("Olive", "onnxruntime", olive))
    return found


if __name__ == "__main__":
    main()
