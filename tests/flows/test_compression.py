"""Pruning and fine-tuning for INT8 inside the chain: what ships, what a kill does, what is said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from edgestill.distill.result import DistillResult, PruneResult, TuneResult
from edgestill.export.bundle.verify import verify
from edgestill.export.result import ConvertResult
from edgestill.flows.chain import STAGES, collected, results_of, sentence, stage_names
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.progress import Silent
from edgestill.flows.report.again import report_again
from edgestill.flows.report.pruning import int8_fine_tuning, pruning
from edgestill.flows.runner import new_run, run_chain
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.prune import Prune
from edgestill.flows.stages.qat import Qat
from edgestill.flows.stages.results import QatResult, Results
from edgestill.flows.stages.students import distilled, methods_state, networks, shipped
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import ConfigError, RunDirError, TrainingError
from edgestill.pipeline.runs.checkpoint import read_state
from edgestill.pipeline.runs.rundir import RunDir

pytestmark = pytest.mark.engines

METHODS = (
    "{name: hard, warmup_steps: 1, every: 4, images: 4}",
    "{name: lelp, subclasses: 2}",
    "{name: kd_aif, warmup_epochs: 1, every: 1}",
    "embedding_regression",
)
SETTINGS = (
    "device.threads=1",
    f"distill.methods=[{', '.join(METHODS)}]",
    "teacher.architecture=resnet8",
    "teacher.training.epochs=2",
    "search.space.widths=[[8],[8],[16]]",
    "search.space.blocks=[[1],[1],[1]]",
    "search.draws=1",
    "search.baselines=[]",
    "search.shortlist=1",
    "tune.enabled=false",
    "distill.training.epochs=3",
    "prune.method=l1",
    "prune.keep=0.45",
    "prune.epochs=3",
    "prune.rounds=2",
    "prune.round_epochs=2",
    "qat.mode=always",
    "qat.epochs=2",
    "export.formats=[fp32,int8]",
    "export.interface=image",
    "export.calibration.method=minmax",
    "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70",
    "baselines.enabled=false",
)


class _Killed(BaseException):
    pass


class _KilledIn(Silent):
    """Ends the process' work in a stage after so many epochs."""

    def __init__(self, stage: str, epoch: int) -> None:
        self._stage, self._epoch, self._now = stage, epoch, ""

    def begin(self, stage: str, index: int, count: int) -> None:
        self._now = stage

    def tick(self, done: int, total: int, note: str) -> None:
        if self._now == self._stage and done == self._epoch and note.startswith("validation"):
            raise _Killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A run whose process ended between two rounds of pruning, and again in the third epoch of the last fine-tuning."""
    config = load_config(preset="digits", settings=SETTINGS)
    with new_run(config, tmp_path_factory.mktemp("runs")) as run, pytest.raises(_Killed):
        run_chain(run, _KilledIn("prune", 2))
    assert not (run.root / "prune" / ".cut2.pt").exists()
    with RunDir.open(run.root) as run, pytest.raises(_Killed):
        run_chain(run, _KilledIn("prune", 3))
    return run.root


def results(root: Path) -> tuple[DistillResult, TuneResult]:
    run = RunDir.view(root)
    return run.read("distill", DistillResult), run.read("tune", TuneResult)


@pytest.fixture(scope="module")
def undisturbed(killed, tmp_path_factory) -> tuple[PruneResult, Path]:
    """The pruning of the same run by a process that nothing ended."""
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(killed, copy)
    shutil.rmtree(copy / "prune")
    run = RunDir.view(copy)
    stage = StageContext(run, run.config(RunConfig), lambda *_: None)
    return Prune().work(stage, results_of(run, stage.config)), copy


@pytest.fixture(scope="module")
def finished(killed, undisturbed) -> Path:
    """The killed run, resumed to its end."""
    assert len(torch_epochs(killed)) == 2, "the kill left two whole epochs"
    with RunDir.open(killed) as run:
        run_chain(run)
    return killed


def torch_epochs(root: Path) -> list[object]:
    _, _, state = (root / "prune" / ".checkpoint.pt").read_bytes().partition(b"\n")  # behind its seal
    return list(read_state(state)["curve"])


def test_a_pruning_that_was_killed_goes_on_as_if_nothing_had_happened(finished, undisturbed) -> None:
    expected, folder = undisturbed
    found = RunDir.view(finished).read("prune", PruneResult)
    accuracies = [[epoch.validation_accuracy for epoch in result.curve] for result in (found, expected)]
    assert accuracies[0] == accuracies[1]
    assert (found.widths, found.tuned, found.pruned) == (expected.widths, expected.tuned, expected.pruned)
    assert found.rounds == 2
    assert "% of the parameters by l1 in 2 rounds; on validation" in sentence(found)
    ours, theirs = (load_file(root / "prune" / "weights.safetensors") for root in (finished, folder))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert not list((finished / "prune").glob(".*")), "what the kill left was removed"


def test_what_methods_prepared_and_learnt_goes_from_stage_to_stage(finished) -> None:
    before, after = (read_state((finished / stage / "methods.pt").read_bytes()) for stage in ("distill", "prune"))
    for part in ("weights", "offsets"):
        assert torch.equal(before["lelp"][part], after["lelp"][part])
    assert torch.equal(before["embedding_regression"]["mean"], after["embedding_regression"]["mean"])
    assert torch.equal(before["kd_aif"]["student"]["weight"], after["kd_aif"]["student"]["weight"])
    assert after["hard"]["counts"][0] > before["hard"]["counts"][0], "the warm-up began again"
    files = RunDir.view(finished).manifest.stages
    assert all(f"{stage}/methods.pt" in files[stage].files for stage in ("distill", "prune"))


def test_fine_tuning_for_int8_goes_on_from_the_methods_of_what_ships(finished, tmp_path, monkeypatch) -> None:
    seen = []

    def taught(*given, state):
        seen.append(state)
        raise TrainingError("enough was seen")

    monkeypatch.setattr("edgestill.flows.stages.qat.taught", taught)
    for prune, stage in (("l1", "prune"), ("none", "distill")):
        given = with_settings(finished, tmp_path / stage, f"prune.method={prune}")
        Qat().work(given, results_of(given.run, given.config))
        expected = read_state((finished / stage / "methods.pt").read_bytes())
        assert seen[-1]["hard"]["counts"] == expected["hard"]["counts"]
        assert torch.equal(seen[-1]["lelp"]["weights"], expected["lelp"]["weights"])


def test_a_distillation_that_kept_nothing_of_its_methods_is_not_gone_on_from(killed, tmp_path) -> None:
    """An earlier version's; a recipe whose methods have no state needs none."""
    stage = with_settings(killed, tmp_path)
    (stage.run.root / "distill" / "methods.pt").unlink()
    with pytest.raises(RunDirError, match="did not keep what hard and lelp and kd_aif and embedding_regression had"):
        methods_state(stage, distilled(stage, results_up_to(stage, "tournament")))
    plain = load_config(preset="digits", settings=(*SETTINGS, "distill.methods=[kd, rkd]"))
    stage = StageContext(stage.run, plain, stage.tick)
    assert methods_state(stage, distilled(stage, results_up_to(stage, "tournament"))) == {"kd": {}, "rkd": {}}


def test_what_ships_is_the_pruned_student(finished) -> None:
    run = RunDir.view(finished)
    found, config = run.read("prune", PruneResult), run.config(RunConfig)
    splits = load_splits(config.read_data, config.seed)
    context = StageContext(run, config, lambda *_: None)
    _, network = networks(context, shipped(context, results_of(run, config)), splits.task)
    params = sum(parameter.numel() for parameter in network.parameters())
    assert params == found.cost.params == pytest.approx(0.45 * found.cost_before.params, rel=0.05)
    bundle = json.loads((finished / "bundle" / "bundle.json").read_text())
    assert bundle["cost"]["student"]["params"] == params
    assert bundle["methods"][-1] == {"name": "prune", "method": "l1", "params": params}
    one = 1.01 / found.tuned.n  # example: the interface rounds pixels to bytes
    exported = run.read("export", ConvertResult).student.validation
    assert exported.accuracy == pytest.approx(found.tuned.accuracy, abs=one)


def test_the_report_shows_parameters_and_accuracy_before_and_after(finished) -> None:
    found = RunDir.view(finished).read("prune", PruneResult)
    page = (finished / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="pruning">') : page.index('<section id="qat">')]
    for cost, metrics in (
        (found.cost_before, found.before),
        (found.cost, found.pruned),
        (found.cost, found.tuned),
    ):
        assert f"{cost.params:,}" in section
        assert f"{cost.flops:,}" in section
        assert f"{metrics.accuracy:.2%}" in section


def test_what_ships_verifies_and_its_card_says_what_was_done_after_the_distillation(finished) -> None:
    assert verify(finished / "bundle").problems == ()
    run = RunDir.view(finished)
    bundle = json.loads((finished / "bundle" / "bundle.json").read_text())
    assert bundle["architecture"] == f"resnet:{results(finished)[0].architecture}, pruned"
    assert bundle["later"][0] == f"pruned: {sentence(run.read('prune', PruneResult))}"
    made_again = run.read("qat", QatResult).models.keys() & bundle["models"].keys()
    assert len(bundle["later"]) == 1 + bool(made_again)
    card = (finished / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.count("\nThen ") == len(bundle["later"])
    assert {model["interface"] for model in bundle["models"].values()} == {"image"}


def test_the_page_can_be_written_again_from_the_run(finished, tmp_path) -> None:
    page = (finished / "report.html").read_bytes()
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    with RunDir.open(copy) as run:
        assert report_again(run, results_of(run, run.config(RunConfig))).read_bytes() == page


def test_the_page_tells_the_distilled_students_accuracy_from_the_pruned_ones(finished) -> None:
    page, (distilled, _) = (finished / "report.html").read_text(encoding="utf-8"), results(finished)
    assert f"The student keeps its best epoch: {distilled.validation.accuracy:.2%}" in page
    assert sentence(distilled) in page


def test_int8_is_made_again_from_the_fine_tuned_weights_and_the_better_file_is_kept(finished) -> None:
    run = RunDir.view(finished)
    found, before = run.read("qat", QatResult), run.read("export", ConvertResult).others["int8"]
    judged = found.formats["int8"]
    assert judged.before == before.validation
    assert judged.kept == ("after" if judged.after.accuracy > judged.before.accuracy else "before")
    kept = found.applied_to(run.read("export", ConvertResult)).others["int8"]
    assert kept.validation == (judged.after if judged.kept == "after" else judged.before)
    assert (finished / kept.path).is_file()
    assert (finished / "qat" / "student.int8.onnx").read_bytes() != (finished / before.path).read_bytes()
    assert f"{judged.after.accuracy:.2%}" in sentence(found)
    assert f"{judged.after.accuracy:.2%}" in str(int8_fine_tuning(found)["rows"])


def with_settings(root: Path, tmp_path: Path, *settings: str) -> StageContext:
    config = load_config(preset="digits", settings=(*SETTINGS, *settings))
    copy = tmp_path / "run"
    shutil.copytree(root, copy)
    return StageContext(RunDir.view(copy), config, lambda *_: None)


def results_up_to(context: StageContext, last: str) -> Results:
    names = stage_names(context.config)
    wanted = names[: names.index(last) + 1]
    return collected(stage.read(context.run) for stage in STAGES if stage.name in wanted)


def test_auto_fine_tunes_nothing_where_int8_passes_the_gate(finished, tmp_path) -> None:
    stage = with_settings(finished, tmp_path, "qat.mode=auto", "export.gate.max_accuracy_drop=1")
    found = Qat().work(stage, results_of(stage.run, stage.config))
    assert found.formats == {}
    assert found.models == {}
    assert sentence(found).startswith("not needed")
    assert int8_fine_tuning(found) is None


def test_a_fine_tuning_that_diverges_leaves_the_files_and_says_so(finished, tmp_path) -> None:
    stage = with_settings(finished, tmp_path, "qat.learning_rate_factor=10", "distill.training.learning_rate=100")
    converted = stage.run.read("export", ConvertResult)
    found = Qat().work(stage, results_of(stage.run, stage.config))
    assert "try a lower learning_rate" in found.refused
    assert found.applied_to(converted) == converted
    assert found.formats["int8"].kept == "before"
    assert found.refused in sentence(found)


def test_a_pruning_that_cannot_be_done_ships_the_distilled_student_and_says_so(killed, tmp_path) -> None:
    stage = with_settings(killed, tmp_path, "prune.keep=0.05")
    shutil.rmtree(stage.run.root / "prune")
    done = results_up_to(stage, "distill")
    found = Prune().work(stage, done)
    assert "l1 cannot take the student from" in found.refused
    assert found.applied_to(done.of(DistillResult)) == done.of(DistillResult)
    assert found.refused in sentence(found)
    assert pruning(found)["refused"] == found.refused


def test_stages_that_are_not_asked_for_are_not_there() -> None:
    off = load_config(preset="digits", settings=("qat.mode=never",))
    assert not {"prune", "qat"} & set(stage_names(off))
    on = stage_names(load_config(preset="digits", settings=("prune.method=taylor",)))
    assert on[on.index("distill") : on.index("profile")] == ("distill", "prune", "export", "qat")


def test_a_space_without_channels_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="students of 'vit' have none"):
        load_config(preset="digits", settings=("prune.method=l1", "search.space=vit"))
