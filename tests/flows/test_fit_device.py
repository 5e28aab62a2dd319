"""`edgestill calibrate`, latencies from files, and real exports under their size bound."""

import json
import random
import sys

import pytest

from edgestill.export.file_timing import ProbeSettings, time_files
from edgestill.flows.cli.main import execute
from edgestill.flows.config import load_config
from edgestill.flows.fit_device import latencies_csv, read_latencies
from edgestill.flows.latency import export_student, in_format, latency_source
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.search.budget import Budget
from edgestill.search.config import LatencyConfig, SearchConfig
from edgestill.search.hardware_costs import size_bound
from edgestill.search.latency.model import fit_latency_model, read_latency_model, trace_student
from edgestill.search.spaces import Nb201Config, Nb201Space, ResNetConfig, ResNetSpace, make_space

SPACE = ResNetSpace(ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 6), (6, 8), (8,))))
POOLS = "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|skip_connect~0|avg_pool_3x3~1|avg_pool_3x3~2|"
OPTIONS = ["blocks=[[1,2],[1,2],[1,2]]", "widths=[[4,6],[6],[8]]"]


def write_csv(path, count=20, header=True):
    texts = [SPACE.format(a) for a in SPACE.all_architectures()]
    chosen = random.Random(0).sample(texts, count)
    lines = [f"{text},{0.1 * sum(map(int, text.split('/')[0].split('-'))):.3f}" for text in chosen]
    path.write_text("\n".join([*(["architecture,latency_ms"] if header else []), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("header", [True, False])
def test_latencies_are_read_with_and_without_a_header(header, tmp_path):
    found = read_latencies(write_csv(tmp_path / "pi.csv", header=header), SPACE)
    assert len(found) == 20
    assert all(latency == pytest.approx(0.1 * sum(list(a.choices.values())[:3])) for a, latency in found)


def test_written_latencies_are_read_back(tmp_path):
    found = read_latencies(write_csv(tmp_path / "pi.csv"), SPACE)
    (tmp_path / "again.csv").write_text(latencies_csv(SPACE, found), encoding="utf-8")
    assert read_latencies(tmp_path / "again.csv", SPACE) == found


def test_all_bad_lines_are_reported_with_their_numbers(tmp_path):
    path = write_csv(tmp_path / "pi.csv")
    bad = ["1-1-1/4-6-8,fast", "9-9,1.0", "1-1-1/4-6-8", "1-1-1/4-6-8,-1", "1-1-1/4-6-8,nan", "1-1-1/4-6-8,inf"]
    path.write_text(path.read_text() + "\n".join(bad) + "\n")
    with pytest.raises(DataError) as refusal:
        read_latencies(path, SPACE)
    problems = str(refusal.value).splitlines()
    assert [int(line.split("line ")[1].split(":")[0]) for line in problems] == [22, 23, 24, 25, 26, 27]
    assert "'fast' is not a number of milliseconds above 0" in problems[0]
    assert "no architecture of space 'resnet'" in problems[1]
    assert "expected an architecture, a comma and a latency" in problems[2]


def test_a_thousand_bad_lines_are_cut_short(tmp_path):
    path = tmp_path / "pi.csv"
    path.write_text("bad,1\n" * 1000)
    with pytest.raises(DataError, match="and 980 more lines"):
        read_latencies(path, SPACE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "latencies of 0 architectures; 12 is the least"),
        (b"\xff\xfe\x00", "cannot be read: byte 0 is not UTF-8"),
        (b"1-1-1/4-6-8,1.0\n", "latencies of 1 architectures"),
        (b"architecture,pi,fpga\n1-1-1/4-6-8,1.0,2.0\n", "several columns.*--column: pi, fpga"),
    ],
)
def test_a_file_without_usable_latencies_is_one_sentence(content, reason, tmp_path):
    path = tmp_path / "pi.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_latencies(path, SPACE)


def test_a_column_is_chosen_by_name_and_repeats_count_with_their_median(tmp_path):
    rows = [(SPACE.format(a), i) for i, a in enumerate(SPACE.all_architectures(), start=1)][:12]
    lines = [f"{text},{i},{value}" for text, i in rows for value in (i + 0.5, 1000, i)]
    path = tmp_path / "two.csv"
    path.write_text("\n".join(["architecture,pi,fpga", *lines]))
    assert [latency for _, latency in read_latencies(path, SPACE, "fpga")] == [i + 0.5 for _, i in rows]
    with pytest.raises(DataError, match="no column 'tpu'; columns of latencies: pi, fpga"):
        read_latencies(path, SPACE, "tpu")


@pytest.mark.engines
def test_calibrating_measures_here_and_the_model_is_used_and_confirmed_here(tmp_path, make_task, capsys):
    out, kept = tmp_path / "here.json", tmp_path / "here.csv"
    options = [part for option in OPTIONS for part in ("--set", option)]
    common = ["calibrate", "--space", "resnet", *options, "--input-shape", "1x8x8", "--classes", "3"]
    asked = ["--samples", "12", "--seconds", "0.02", "--save-csv", str(kept), "--out", str(out)]
    assert execute([*common, *asked]) == 0
    assert "Kendall tau" in capsys.readouterr().out
    model = read_latency_model(out)
    assert (model.n, model.threads, model.batch, model.input_shape) == (12, 1, 1, (1, 8, 8))
    assert model.machine is not None
    assert model.machine["cpu"] == describe_machine()["cpu"]
    assert model.space_options["widths"] == [[4, 6], [6], [8]]

    assert execute([*common, "--from-csv", str(kept), "--out", str(tmp_path / "there.json")]) == 0
    there = read_latency_model(tmp_path / "there.json")
    assert (there.costs, there.machine, there.device) == (model.costs, None, "here")

    task = make_task()
    config = SearchConfig(
        space=SPACE_CONFIG, budget=Budget(max_latency_ms=1e6), latency=LatencyConfig(source="model", model=out)
    )
    source = latency_source(config, task, 20)
    assert source is not None
    assert source.measure is not None
    architecture = make_space(SPACE_CONFIG).sample(random.Random(0))
    assert 0 < source.measure(architecture) < 1000
    elsewhere = config.model_copy(update={"latency": LatencyConfig(source="model", model=tmp_path / "there.json")})
    found = latency_source(elsewhere, task, 20)
    assert found is not None
    assert found.measure is None


@pytest.mark.parametrize(("form", "operator"), [("fp32", b""), ("fp16", b"Cast"), ("int8", b"DequantizeLinear")])
def test_a_candidate_is_measured_in_the_form_that_is_asked_for(form, operator, make_task):
    task = make_task()
    data = export_student(SPACE, SPACE.sample(random.Random(0)), task, 20)
    found = in_format(data, form, task)
    assert operator in found
    assert (found == data) is (form == "fp32")
    settings = ProbeSettings(TimingConfig(warmup_s=0, duration_s=0.001, min_samples=11))
    assert time_files({"student": found}, settings)["student"].percentile(50) > 0


def test_another_form_than_fp32_is_not_predicted_and_the_default_is_not_written():
    assert "format" not in LatencyConfig().model_dump()
    assert LatencyConfig(format="int8").model_dump()["format"] == "int8"
    with pytest.raises(ConfigError, match="source 'model' predicts fp32 files"):
        load_config(settings=["search.latency={source: model, model: a.json, format: int8}"], check_files=False)


SPACE_CONFIG = ResNetConfig(blocks=((1, 2),) * 3, widths=((4, 6), (6,), (8,)))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--space", "resnet", "--samples", "3"], "--samples 3: 12 is the least"),
        (["--space", "resnt"], "did you mean 'resnet'"),
        (["--space", "resnet", "--set", "depth=3"], "search.space.depth: unknown key"),
        (["--space", "resnet", "--input-shape", "32"], "--input-shape 32: expected CHANNELSxHEIGHTxWIDTH"),
        (["--space", "resnet", "--from-csv", "none.csv"], "none.csv"),
    ],
)
def test_a_mistaken_command_is_one_sentence_and_leaves_no_file(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edgestill"])
    assert execute(["calibrate", *arguments, "--out", str(tmp_path / "d.json")]) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def model_file(tmp_path, make_task):
    task = make_task()
    samples = [(a, 0.1 + sum(list(a.choices.values())[:3])) for a in list(SPACE.all_architectures())[:20]]
    path = tmp_path / "pi.json"
    path.write_text(fit_latency_model(SPACE, {}, task, samples, device="pi").to_json())
    return path


def test_a_model_that_does_not_fit_is_refused_with_the_configuration(model_file, tmp_path):
    settings = ["search.latency.source=model", "search.budget.max_latency_ms=3"]
    assert load_config(settings=[*settings, f"search.latency.model={model_file}"]).search.latency.model == model_file
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"schema": "edgestill.latency/2"}))
    for extra, reason in (
        ([f"search.latency.model={model_file}", "search.space.name=nb201"], "space 'resnet', not of 'nb201'"),
        ([f"search.latency.model={broken}"], "schema is 'edgestill.latency/2'"),
        (["search.latency.model=none.json"], "no file at none.json"),
        ([], "source 'model' needs model"),
    ):
        with pytest.raises(ConfigError, match=reason) as refusal:
            load_config(settings=[*settings, *extra])
        assert len(refusal.value.problems) == 1


def test_a_model_for_another_input_is_refused_before_anything_is_trained(model_file, make_task):
    config = SearchConfig(budget=Budget(max_latency_ms=3), latency=LatencyConfig(source="model", model=model_file))
    with pytest.raises(DataError, match="inputs of 1x8x8, and the data's are 3x32x32"):
        latency_source(config, make_task(channels=3, side=32), 20)
    assert latency_source(SearchConfig(), make_task(), 20) is None


@pytest.mark.parametrize(
    ("space", "text", "side", "channels"),
    [
        (SPACE, "1-1-1/4-6-8", 8, 1),
        (ResNetSpace(), "3-3-3/24-48-64", 32, 3),
        (Nb201Space(Nb201Config(channels=2, cells=1)), None, 8, 1),
        (Nb201Space(Nb201Config(cells=2)), None, 32, 3),
        (Nb201Space(Nb201Config(channels=1, cells=2)), POOLS, 8, 1),  # many operations, hardly a weight
    ],
)
def test_a_real_export_stays_below_the_size_bound_and_near_it(space, text, side, channels, make_task):
    task = make_task(channels=channels, side=side, classes=10)
    architecture = space.parse(text) if text else space.sample(random.Random(1))
    bound = size_bound(space.build(architecture, task), trace_student(space, architecture, task))
    size = len(export_student(space, architecture, task, opset=20))
    assert size <= bound
    assert bound - size < max(0.1 * size, 20_000)
