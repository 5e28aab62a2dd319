"""Whole runs whose students are made of layers of the teacher: a text teacher trained here, and one of images."""

import pytest
import torch
from torch import nn

from edgestill.export.bundle.verify import verify
from edgestill.flows.config.model import RunConfig
from edgestill.flows.runner import compress
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.results import DataResult
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.torchvision_compat import repair
from edgestill.search.tournament import TournamentResult

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
WORDS = {"praise": ("lovely", "moving", "fine"), "blame": ("dull", "empty", "poor")}
BRIEF = (
    "search.space={name: layers_of_teacher, heads: [1, 2]}", "distill.start=teacher", "search.evaluations=4",
    "search.draws=1", "search.baselines=[params]", "search.batch_size=16", "search.shortlist=2",
    "search.tournament.epochs=1", "tune.enabled=false", "distill.training.epochs=2", "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70", "export.formats=[fp32]", "baselines.enabled=false",
)  # fmt: skip


def write_texts(path):
    rows = []
    for n in range(240):
        label = ("praise", "blame")[n % 2]
        filler = " ".join(("film", "story", "it", "is", "was")[(n // k) % 5] for k in (1, 2, 3, 5)[: 1 + n % 4])
        rows.append(f"{filler} {WORDS[label][n % 3]}\t{label}")
    path.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def save_vit(folder):
    repair()
    transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    images = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **images))
    train = load_splits(RunConfig().data, 0).train
    batch = train.batch(torch.arange(len(train)))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for rows in (rows for _ in range(8) for rows in torch.randperm(len(train)).split(64)):
        optimizer.zero_grad()
        logits = network(pixel_values=batch.inputs[rows]).logits
        nn.functional.cross_entropy(logits, batch.targets[rows]).backward()
        optimizer.step()
    network.save_pretrained(folder)
    return folder


def require_whole(outcome):
    """The bundle is sound, and the student began with the run's own teacher's weights."""
    assert verify(outcome.bundle).problems == ()
    run = RunDir.view(outcome.run)
    config = run.config(RunConfig)
    context = StageContext(run, config, lambda *tick: None)
    task = run.read("data", DataResult).task
    winner = context.architecture_of(run.read("tournament", TournamentResult).winner)
    begun = context.fresh_student(winner, task)
    teacher = context.teacher(task)
    assert torch.equal(begun.get_classifier().weight, teacher.get_classifier().weight)
    assert outcome.teacher.cost.params >= sum(p.numel() for p in begun.parameters())
    assert "layers of the teacher" in (outcome.run / "report.html").read_text(encoding="utf-8")
    return begun


def test_a_run_on_texts_ends_in_a_bundle(tmp_path):
    data = write_texts(tmp_path / "texts.tsv")
    settings = (
        f"data.path={data}", "data.columns=null", "data.validation=null", "data.test=null",
        "data.tokenizer={kind: wordpiece, vocab_size: 120}", "teacher.training.epochs=2",
        "teacher.architecture=text_transformer_2x128",
    )  # fmt: skip
    outcome = compress(preset="sst2", settings=[*settings, *BRIEF], out=tmp_path / "runs")
    assert require_whole(outcome).embedding_dim == 128


def test_a_run_on_images_ends_in_a_bundle(tmp_path):
    folder = save_vit(tmp_path / "vit")
    settings = (f"teacher=hf:{folder}", "search.budget.max_params=6000")
    outcome = compress(preset="digits", settings=[*settings, *BRIEF], out=tmp_path / "runs")
    assert require_whole(outcome).embedding_dim == 16
