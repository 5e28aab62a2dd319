"""Runs side by side: what differs is shown, and what was measured on other terms is not compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgestill.distill.result import DistillResult
from edgestill.export.result import ConvertedModel, ExportedModel, Latency, Parity, ProfileResult, Ratio, Verdict
from edgestill.flows.cli.main import execute
from edgestill.flows.compare.page import comparison_lines, render_comparison
from edgestill.flows.compare.rows import asked, ships, stages
from edgestill.flows.compare.runs import ComparedRun, read_runs
from edgestill.flows.config import load_config
from edgestill.flows.stages.results import DataResult, ReportResult
from edgestill.pipeline.errors import ConfigError, RunDirError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.metrics import Metrics, unpaired_difference
from edgestill.pipeline.training.state import EpochRecord

Make = Callable[..., Path]


def metrics(accuracy: float, n: int = 400) -> Metrics:
    return Metrics(accuracy=accuracy, cross_entropy=0.2, n=n)


def data(test: str) -> DataResult:
    return DataResult(
        task=Task(labels=("cat", "dog"), input_shape=(1, 8, 8), mean=(0.3,), std=(0.3,)),
        sizes={"train": 900, "validation": 100, "test": 400},
        digests={"train": "1" * 64, "validation": "2" * 64, "test": test * 64},
    )


def distilled(params: int, epochs: int = 4) -> DistillResult:
    curve = tuple(
        EpochRecord(
            epoch=k, learning_rate=0.1, loss=1 / k, terms={"distillation": 1 / k}, validation_accuracy=1 - 0.5 / k,
            validation_cross_entropy=0.3, seconds=0.1,
        )
        for k in range(1, epochs + 1)
    )  # fmt: skip
    return DistillResult(
        architecture="1-1-1/8-8-16", methods=({"name": "kd"},), learning_rate=0.1, weight_decay=0.0,
        teacher_cached=True, validation=metrics(0.9, 100), cost=Cost(params=params, flops=20 * params),
        best_epoch=epochs, stopped_early=False, curve=curve,
    )  # fmt: skip


def profiled(p50_ms: float, cpu: str) -> ProfileResult:
    file = ConvertedModel(
        path="export/x.onnx", sha256="ab" * 32, size_bytes=81_234, precision="fp32", opset=20,
        parity=Parity(max_abs_difference=1e-6, top1_agreement=1.0, n=100, checked=("validation",)),
    )  # fmt: skip
    latency = Latency(runtime="ort 1", provider="CPU", threads=1, batch=1, summary={"n": 100, "p50_ms": p50_ms})
    model = ExportedModel(**file.model_dump(), latency=latency)
    verdict = Verdict(format="fp32", shipped=True, reason="the base")
    ratio = Ratio(value=2.0, interval=(1.9, 2.1))
    return ProfileResult(
        teacher=model, formats={"fp32": model}, speedups={"fp32": ratio}, verdicts=(verdict,), default="fp32",
        cpu=cpu, load_before=None,
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """(name, accuracy or None for one that stopped after distillation, …) to a run's folder."""

    def made(
        name: str, accuracy: float | None = 0.9, *, test: str = "3", cpu: str = "a cpu", params: int = 5000,
        settings: tuple[str, ...] = (), p50_ms: float = 0.123,
    ) -> Path:  # fmt: skip
        config = load_config(None, "digits", [f"name={name}", *settings])
        results: dict[str, Any] = {"data": data(test), "distill": distilled(params)}
        if accuracy is not None:
            results["profile"] = profiled(p50_ms, cpu)
            results["report"] = ReportResult(
                teacher=metrics(0.95), student=metrics(accuracy), shipped=metrics(accuracy), digest="d" * 64
            )
        with RunDir.create(tmp_path / "runs", name, config.seed, config) as run:
            for stage, result in results.items():
                run.finish(stage, result, "", 1.5)
        return run.root

    return made


def cells(runs: list[ComparedRun], name: str) -> list[str]:
    return dict(ships(runs))[name]


def test_only_settings_that_differ_are_shown_and_names_are_none(make: Make) -> None:
    runs = read_runs([make("one"), make("two", settings=("search.budget.max_params=123", "trackers=[tensorboard]"))])
    assert asked(runs) == [("search.budget.max_params", ["70000", "123"])]


def test_a_run_is_shown_with_what_it_has(make: Make) -> None:
    runs = read_runs([make("one"), make("two", None)])
    assert [state.partition(" of ")[0] for state in cells(runs, "state")] == ["unfinished: 4", "unfinished: 2"]
    assert cells(runs, "state")[1].endswith("stages, up to distill")
    assert cells(runs, "latency p50") == ["0.123 ms", "–"]
    assert cells(runs, "parameters") == ["5,000", "5,000"]
    assert cells(runs, "validation accuracy") == ["–", "90.00%"]


def test_a_difference_is_told_with_an_interval_on_the_same_examples_alone(make: Make) -> None:
    runs = read_runs([make("one", 0.9), make("two", 0.85), make("three", 0.99, test="4")])
    assert cells(runs, "test accuracy")[0] == "90.00% [86.7, 92.6]"
    first, second, third = cells(runs, "against the first")
    low, high = unpaired_difference(0.9, 400, 0.85, 400)
    assert (first, third) == ("–", "other examples")
    assert second == f"-5.0 points [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")
    assert "tested on different examples (one and two / three" in comparison_lines(runs)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    low, high = unpaired_difference(48 / 80, 80, 56 / 70, 70)  # Newcombe 1998, table II, (a), method 10
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_runs_timed_on_other_machines_are_said_to_be_so(make: Make) -> None:
    same = comparison_lines(read_runs([make("one"), make("two")]))
    assert "timed on different" not in same
    assert "timed on different" in comparison_lines(read_runs([make("three"), make("four", cpu="another")]))


def test_stages_that_went_the_same_way_are_only_named(make: Make) -> None:
    differing, alike = stages(read_runs([make("one"), make("two", 0.8)]))
    assert [name for name, _ in differing] == ["report"]
    assert alike == ["data", "distill", "profile"]
    assert differing[0][1][1][1] == "1.5 s"


def test_the_page_is_whole_inert_and_overlays_the_curves_of_equal_data(make: Make) -> None:
    runs = read_runs([make("one"), make("two", settings=("card.intended=<script>x</script>",))])
    cautions: list[str] = []
    page = render_comparison(runs, cautions)
    assert cautions == []
    assert page == render_comparison(runs, [])
    assert page.count("<svg") == 1
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    for section in ("ships", "asked", "curves", "stages", "runs"):
        assert f'<section id="{section}">' in page


def test_runs_of_one_name_are_told_apart_by_their_folders(make: Make) -> None:
    roots = [make("one"), make("one", 0.8)]
    assert [run.name for run in read_runs(roots)] == [root.name for root in roots]


def test_too_few_too_many_and_the_same_run_twice_are_refused(make: Make, tmp_path: Path) -> None:
    root = make("one")
    with pytest.raises(ConfigError, match="1 run given; compare takes 2 to 6"):
        read_runs([root])
    with pytest.raises(ConfigError, match="given twice"):
        read_runs([root, root.parent / ".." / root.parent.name / root.name])
    (root / "distill" / "result.json").write_text("{}")
    with pytest.raises(RunDirError, match="was altered"):
        read_runs([root, make("two")])


def test_the_command_writes_the_page_and_prints_a_short_table(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, page = make("one"), make("two", 0.8), tmp_path / "both.html"
    assert execute(["compare", one.name, str(two), "--out", str(one.parent), "-o", str(page)]) == 0
    said = capsys.readouterr().out
    assert "against the first" in said
    assert "all were asked the same" in said
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert execute(["compare", str(one), str(two), "-o", str(tmp_path)]) == 2
