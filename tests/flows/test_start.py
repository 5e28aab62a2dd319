"""`distill.start`: a student's first weights are drawn, published, the teacher's, or another run's student's."""

import re

import pytest
import torch
from safetensors.torch import save_file

from edgestill.distill.result import DistillResult
from edgestill.flows import first_weights
from edgestill.flows.config.loading import load_config
from edgestill.flows.runner import compress
from edgestill.flows.stages.context import WEIGHTS, StageContext
from edgestill.flows.stages.results import DataResult
from edgestill.pipeline.errors import ConfigError, RunDirError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training.metrics import Metrics
from edgestill.search.result import Candidate
from edgestill.search.spaces.backbone_networks import created
from edgestill.search.tournament import TournamentResult

STUDENT = "1-1-1/4-4-8"
OWN_TEACHER = """
from torch import nn
from edgestill.pipeline.networks.attention import EncoderBlock

class Own(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes, self.into = num_classes, nn.Conv2d(1, 8, 4, 4)
        self.body = nn.Sequential(*(EncoderBlock(2, 4, 2) for _ in range(3)))
        self.last = nn.Linear(8, num_classes)
    def forward_features(self, x):
        return self.body(self.into(x).flatten(2).transpose(1, 2))
    def forward_head(self, x, pre_logits=False):
        return x.mean(1) if pre_logits else self.last(x.mean(1))
    def get_classifier(self):
        return self.last
    def forward(self, x):
        return self.forward_head(self.forward_features(x))

def make(num_classes):
    return Own(num_classes)
"""
ALONE = ["search.space.blocks=[[1],[1],[1]]", "search.space.widths=[[4],[4],[8]]"]


def context_of(root, *settings, name="new", start="random", alone=ALONE):
    config = load_config(preset="digits", settings=[*alone, *settings, f"distill.start={start}", f"name={name}"])
    return StageContext(RunDir.create(root, name, config.seed, config), config, lambda *tick: None)


def as_distilled(context, task, text):
    """A run as far as its distillation, of a student with weights that no seed draws; and these weights."""
    student = context.structure(context.space.parse(text), task)
    with torch.no_grad():
        for number, tensor in enumerate(student.state_dict().values()):
            tensor.fill_(number)
    winner = Candidate(architecture=text, cost=Cost(params=1, flops=1), scores={}, std={})
    run = context.run
    run.finish("data", DataResult(task=task, sizes={}, digests={}), "", 0)
    run.finish("tournament", TournamentResult(enabled=False, winner=winner, search_winner=winner), "", 0)
    run.write("distill", WEIGHTS, weights_bytes(student))
    validation = Metrics(accuracy=0.5, cross_entropy=1.0, n=4)
    result = DistillResult(
        architecture=text, methods=(), learning_rate=0.1, weight_decay=0.1, teacher_cached=False,
        validation=validation, cost=winner.cost, best_epoch=1, stopped_early=False, curve=(),
    )  # fmt: skip
    run.finish("distill", result, "", 0)
    run.close()
    return run.root, student.state_dict()


@pytest.fixture
def finished(tmp_path, make_task):
    return as_distilled(context_of(tmp_path, name="old"), make_task(), STUDENT)


def test_a_start_that_the_space_does_not_know_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"distill\.start 'pretrained' .* 'resnet' cannot take any; search backbones"):
        load_config(preset="digits", settings=["distill.start=pretrained"])
    with pytest.raises(ConfigError, match=r"'latest' is another run each day; give the run's id"):
        load_config(preset="digits", settings=["distill.start=latest"])
    with pytest.raises(ConfigError, match=r"search\.space\.weights is not set"):
        load_config(preset="digits", settings=["distill.start=pretrained", "search.space=backbones"])


def test_a_student_starts_from_another_runs(finished, tmp_path, make_task):
    root, weights = finished
    for start in (root.name, str(root)):
        context = context_of(tmp_path, start=start)
        task, architecture = make_task(), context.space.parse(STUDENT)
        context.require_start(task)
        student = context.fresh_student(architecture, task).state_dict()
        assert all(torch.equal(student[name], weights[name]) for name in weights)
        assert context.start_digests
        drawn = context.structure(architecture, task).state_dict()
        assert not torch.equal(drawn["linear.weight"], weights["linear.weight"])


def test_the_classifier_is_drawn_afresh_where_the_classes_have_other_names(finished, tmp_path, make_task):
    root, weights = finished
    context = context_of(tmp_path, start=root.name)
    for task in (make_task(classes=5), make_task().model_copy(update={"labels": ("x", "y", "z")})):
        architecture = context.space.parse(STUDENT)
        student = context.fresh_student(architecture, task).state_dict()
        drawn = context.structure(architecture, task).state_dict()
        for name in weights:
            expected = drawn if name.startswith("linear.") else weights
            assert torch.equal(student[name], expected[name])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["search.space.blocks=[[1,2],[1],[1]]"], "which its weights do not fit; leave one choice for each gene"),
        (["search.space.widths=[[4],[4],[6]]"], f"has the student {STUDENT}, and this one is 1-1-1/4-4-6"),
        (["search.space={name: vit, depth: [1]}"], "has a student of space 'resnet', not of 'vit'"),
    ],
)
def test_a_run_of_another_student_is_refused_before_anything_is_trained(
    settings, sentence, finished, tmp_path, make_task
):
    root, _ = finished
    context = context_of(tmp_path, *settings, start=root.name, alone=[] if "vit" in settings[0] else ALONE)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        context.require_start(make_task())


def test_a_run_that_is_not_there_or_has_no_student_is_refused(finished, tmp_path, make_task):
    unfinished = context_of(tmp_path, name="unfinished")
    for start, sentence in (("olf", "no run at 'olf'"), (unfinished.run.root.name, "has not finished its tournament")):
        with pytest.raises(RunDirError, match=sentence):
            context_of(tmp_path, start=start).require_start(make_task())


def test_other_weights_of_the_run_are_other_inputs(finished, tmp_path, make_task):
    root, _ = finished
    context = context_of(tmp_path, start=root.name)
    before = first_weights.start_digests(root.name, tmp_path, context.space)
    assert before == context.start_digests
    assert len(before) == 1
    (root / "distill" / WEIGHTS).write_bytes(b"other")
    with pytest.raises(RunDirError, match="was altered"):
        _ = context.start_digests


def test_a_student_of_the_teachers_layers_starts_from_another_runs(tmp_path, make_task):
    (tmp_path / "own.py").write_text(OWN_TEACHER)
    space = "search.space={name: layers_of_teacher, layers: [2], heads: [1], feed_forward: [2]}"
    settings, task = (f"teacher={tmp_path / 'own.py'}:make", space), make_task()
    root, weights = as_distilled(context_of(tmp_path, *settings, name="old", alone=[]), task, "l2h1f2")
    context = context_of(tmp_path, *settings, start=root.name, alone=[])
    context.require_start(task)
    student = context.fresh_student(context.space.parse("l2h1f2"), task).state_dict()
    assert student.keys() == weights.keys()
    assert all(torch.equal(student[name], weights[name]) for name in weights)
    larger = context_of(tmp_path, *settings, space.replace("[1]", "[2]"), start=root.name, name="larger", alone=[])
    with pytest.raises(ConfigError, match="has the student l2h1f2, and this one is l2h2f2"):
        larger.require_start(task)


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore")
def test_a_pretrained_backbone_ends_in_a_bundle(tmp_path):
    for model in ("test_resnet", "test_efficientnet"):
        save_file(created(model).state_dict(), tmp_path / f"{model}.safetensors")
    settings = (
        "search.space={name: backbones, models: [test_resnet, test_efficientnet], resolution: [32]}",
        f"search.space.weights={tmp_path}", "distill.start=pretrained", "search.draws=1", "search.baselines=[params]",
        "search.budget={max_params: 1000000}", "search.shortlist=2", "search.tournament.epochs=1",
        "tune.enabled=false", "teacher.training.epochs=2", "distill.training.epochs=2",
        "distill.training.learning_rate=0.01", "profile.timing.duration_s=0.05", "profile.timing.min_samples=70",
        "export.formats=[fp32,int8]", "baselines.enabled=false",
    )  # fmt: skip
    done = compress(preset="digits", settings=settings, out=tmp_path / "runs")
    assert (done.bundle / "bundle.json").is_file()
    assert done.distilled.architecture in ("test_resnet@32", "test_efficientnet@32")
