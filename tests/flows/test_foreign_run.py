"""A whole run with a teacher of each kind from elsewhere, on digits."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgestill.export.bundle.verify import verify
from edgestill.flows.config.loading import load_config
from edgestill.flows.runner import compress, new_run, run_chain
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.torchvision_compat import repair

repair()
transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")

BRIEF = (
    "search.space.widths=[[8],[8,12],[16]]", "search.space.blocks=[[1,2],[1],[1]]", "search.budget.max_params=26000",
    "search.draws=1", "search.baselines=[params]", "search.shortlist=0", "tune.enabled=false",
    "distill.training.epochs=2", "profile.timing.duration_s=0.05", "profile.timing.min_samples=70",
    "export.formats=[fp32]", "baselines.enabled=false",
)  # fmt: skip
CODE = """
from torch import nn

def make(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(512, num_classes))
"""


def fit(network, call, epochs, rate):
    torch.manual_seed(0)
    train = load_splits(load_config(preset="digits").data, 0).train
    optimizer = torch.optim.Adam(network.parameters(), rate)
    batch = train.batch(torch.arange(len(train)))
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(64):
            loss = nn.functional.cross_entropy(call(batch.inputs[rows]), batch.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The same small trained network as each kind that needs a file."""
    folder, space = tmp_path_factory.mktemp("teachers"), {}
    exec(CODE, space)
    network = space["make"](10)
    fit(network, network, 6, 3e-3)
    (folder / "mine.py").write_text(CODE)
    save_file(network.state_dict(), folder / "w.safetensors")
    torch.jit.save(torch.jit.trace(network, torch.rand(2, 1, 8, 8)), folder / "teacher.pt")
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(network, (torch.rand(2, 1, 8, 8),), folder / "teacher.onnx", dynamo=False, **names)
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=8,
            patch_size=2, num_channels=1, num_labels=10,
        )
    )  # fmt: skip
    fit(vit, lambda inputs: vit(pixel_values=inputs).logits, 6, 3e-3).save_pretrained(folder / "vit")
    return folder, network


KINDS = {  # test_matrix.py has the others
    "torchscript": ["teacher=torchscript:{folder}/teacher.pt"],
    "hf": ["teacher=hf:{folder}/vit", "distill.methods=[kd, diswot_plus]"],
    "timm": ["teacher=timm:resnet10t", "teacher.training.epochs=1"],
}


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_teacher_from_elsewhere_ends_in_a_bundle(kind, teachers, tmp_path):
    folder, _ = teachers
    settings = [setting.format(folder=folder) for setting in KINDS[kind]]
    outcome = compress(preset="digits", settings=[*BRIEF, *settings], out=tmp_path)
    assert (outcome.bundle / "bundle.json").is_file()
    assert outcome.teacher.cost.params > 0
    assert outcome.teacher.cost.flops > 0
    if kind != "timm":
        assert outcome.teacher.validation.accuracy > 0.7
    assert outcome.profiled.teacher.parity.max_abs_difference <= 1e-4


def until_search(stage, work):
    if stage == "search":
        raise KeyboardInterrupt
    return work()


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["npz", "csv"])
def test_answers_in_a_file_are_a_teacher(teachers, tmp_path, form):
    _, network = teachers
    data = load_config(preset="digits", settings=["data.augment.pad=0"]).data
    splits = [*load_splits(data, 0).parts, load_test(data, 0)]
    ids = np.concatenate([split.ids for split in splits])
    with torch.no_grad():
        logits = torch.cat([network(split.batch(torch.arange(len(split))).inputs) for split in splits])
    order = np.random.default_rng(0).permutation(len(ids))
    file = tmp_path / f"answers.{form}"
    if form == "npz":
        np.savez(file, ids=ids[order], logits=logits.numpy()[order], embedding=logits.numpy()[order])
    else:
        frame, shares = ["id," + ",".join("0123456789")], logits.softmax(1)
        frame += [f"{ids[row]},{','.join(f'{value:.6f}' for value in shares[row].tolist())}" for row in order]
        file.write_text("\n".join(frame))
    settings = [*BRIEF, f"teacher=outputs:{file}", "data.augment.pad=0", "search.scorer=nwot"]
    validation = load_splits(data, 0).validation
    with torch.no_grad():
        right = network(validation.batch(torch.arange(len(validation))).inputs).argmax(1) == validation.targets
    accuracy = pytest.approx(right.double().mean().item())
    if form == "npz":  # told apart by the teacher's stage alone
        with new_run(load_config(preset="digits", settings=settings), tmp_path / "runs") as run:
            with pytest.raises(KeyboardInterrupt):
                run_chain(run, call=until_search)
            assert run.read("teacher", TeacherResult).validation.accuracy == accuracy
        return
    outcome = compress(preset="digits", settings=settings, out=tmp_path / "runs")
    assert outcome.teacher.validation.accuracy == accuracy
    assert outcome.teacher.cost is None
    assert outcome.profiled.teacher is None
    assert outcome.tested.teacher.accuracy > 0.7
    assert outcome.profiled.speedups == {}
    page, card = (outcome.run / "report.html").read_text(), (outcome.bundle / "MODEL_CARD.md").read_text()
    assert "ms a call" in page or "µs a call" in page
    assert "given as its answers" in card
    assert not verify(outcome.bundle).problems


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore")
def test_a_module_in_hand_is_a_teacher(teachers, tmp_path):
    _, network = teachers
    outcome = compress(preset="digits", settings=BRIEF, out=tmp_path, teacher=network)
    assert outcome.teacher.validation.accuracy > 0.7
    assert outcome.distilled.cost.params > 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["distill.methods=[lelp]"], r"'lelp' needs the last Linear layer and the embedding of.*without: kd, "),
        (
            ["distill.methods=[kd, hard]"],
            "'hard' needs gradients of its teacher, which the teacher teacher\.onnx",
        ),
        (
            ["search.scorer=diswot"],
            "scorer 'diswot' needs more of the teacher than teacher",
        ),
    ],
)
def test_what_a_black_box_cannot_give_is_refused_by_the_configuration(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(preset="digits", settings=["teacher=onnx:teacher.onnx", *settings], check_files=False)


def test_a_family_in_a_word_replaces_a_presets_teacher_but_for_its_training():
    config = load_config(preset="digits", settings=["teacher.weights=w.pt", "teacher=timm:resnet18"], check_files=False)
    assert (config.teacher.name, config.teacher.model, str(config.teacher.weights)) == ("timm", "resnet18", "w.pt")
    assert config.teacher.training == load_config(preset="digits").teacher.training
