"""Every kind of data with every kind of teacher, from files on disk to a bundle that verifies and answers.

Pictures of three colours, 18 to 24 pixels wide; teachers learn them in seconds, and a student in one epoch each.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import verify
from edgestill.export.onnx.write import to_onnx
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.runner import new_run, run_chain
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.torchvision_compat import repair

pytestmark = pytest.mark.engines

repair()
timm = pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")
torchvision = pytest.importorskip("torchvision", reason="pip install 'edgestill[timm]'")
transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")
datasets = pytest.importorskip("datasets", reason="pip install 'edgestill[datasets]'")

LABELS = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
SIDE, EACH = 16, 60
SETTINGS = (
    "device.threads=1", "search.space.widths=[[4],[8],[8]]",
    "search.space.blocks=[[1],[1],[1]]", "search.scorer=params", "search.baselines=[]", "search.shortlist=1",
    "search.draws=1", "search.budget.max_params=20000", "tune.enabled=false", "distill.methods=[{name: kd}]",
    "distill.training.epochs=3", "distill.training.batch_size=16", "distill.training.learning_rate=0.05",
    "export.formats=[fp32]", "profile.timing.duration_s=0.02", "profile.timing.min_samples=30",
    "baselines.enabled=false",
)  # fmt: skip


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.answer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, str]]:
    """Pictures [H, W, 3] of one colour under noise, with their labels."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(3 * EACH):
        label = LABELS[n % 3]
        height, width = rng.integers(18, 25, 2)
        noisy = np.array(COLOURS[label]) + rng.normal(0, 40, (height, width, 3))
        found.append((np.clip(noisy, 0, 255).astype(np.uint8), label))
    return found


def in_folder(pictures, root: Path) -> list[str]:
    for n, (pixels, label) in enumerate(pictures):
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / label / f"{n}.png")
    return ["data.name=folder", f"data.path={root}"]


def in_csv(pictures, root: Path) -> list[str]:
    rows = ["image,label"]
    for n, (pixels, label) in enumerate(pictures):
        Image.fromarray(pixels).save(root / f"{n}.jpg", quality=95)
        rows.append(f"{n}.jpg,{label}")
    (root / "rows.csv").write_text("\n".join(rows))
    return ["data.name=csv", f"data.path={root / 'rows.csv'}"]


def in_parquet(pictures, root: Path) -> list[str]:
    made = {"image": [Image.fromarray(p) for p, _ in pictures], "label": [label for _, label in pictures]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(made, features=features).to_parquet(root / "rows.parquet")
    return ["data.name=parquet", f"data.path={root / 'rows.parquet'}"]


def in_dataset(pictures, root: Path) -> list[str]:
    made = {"image": [Image.fromarray(p) for p, _ in pictures], "label": [LABELS.index(name) for _, name in pictures]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(LABELS))})
    datasets.Dataset.from_dict(made, features=features).save_to_disk(root / "kept")
    return ["data.name=huggingface", f"data.path={root / 'kept'}"]


def in_code(pictures, root: Path) -> list[str]:
    in_folder(pictures, root)
    (root / "mine.py").write_text(
        "from pathlib import Path\nfrom PIL import Image\n\nclass Mine:\n"
        f"    classes = {list(LABELS)}\n"
        "    def __init__(self):\n"
        f"        self.paths = sorted(Path({str(root)!r}).glob('*/*.png'))\n"
        "    def __len__(self):\n        return len(self.paths)\n"
        "    def __getitem__(self, n):\n"
        "        return Image.open(self.paths[n]), self.classes.index(self.paths[n].parent.name)\n\n"
        "def make():\n    return Mine()\n"
    )
    return ["data.name=python", f"data.code={root / 'mine.py'}:make"]


DATA: dict[str, Callable[..., list[str]]] = {
    "folder": in_folder,
    "csv": in_csv,
    "parquet": in_parquet,
    "huggingface": in_dataset,
    "python": in_code,
}


def taught(network: nn.Module, pictures, rate: float = 1e-2) -> nn.Module:
    """Train a network on the pictures, as their owner would have."""
    torch.manual_seed(0)
    pictures = pictures[:90]
    resized = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for p, _ in pictures]
    images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    targets = torch.tensor([LABELS.index(label) for _, label in pictures])
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for _ in range(25):
        optimizer.zero_grad()
        given = network((images - 0.5) / 0.5)
        loss = nn.functional.cross_entropy(getattr(given, "logits", given), targets)
        loss.backward()
        optimizer.step()
    return network.eval()


def of_timm(pictures, root: Path) -> list[str]:
    network = taught(timm.create_model("resnet10t", num_classes=3), pictures, 1e-3)
    torch.save(network.state_dict(), root / "timm.pt")
    return ["teacher=timm:resnet10t", f"teacher.weights={root / 'timm.pt'}", "teacher.size=data", *HALF]


def of_torchvision(pictures, root: Path) -> list[str]:
    network = taught(torchvision.models.resnet18(num_classes=3), pictures, 1e-3)
    torch.save(network.state_dict(), root / "vision.pt")
    return ["teacher=torchvision:resnet18", f"teacher.weights={root / 'vision.pt'}", "teacher.size=data", *HALF]


def of_hugging_face(pictures, root: Path) -> list[str]:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=SIDE, patch_size=4,
        id2label=dict(enumerate(LABELS)), label2id={label: n for n, label in enumerate(LABELS)},
    )  # fmt: skip
    taught(transformers.ViTForImageClassification(config), pictures).save_pretrained(root / "vit")
    return [f"teacher=hf:{root / 'vit'}", "teacher.size=data", *HALF]


def of_code(pictures, root: Path) -> list[str]:
    torch.save(taught(Plain(), pictures).state_dict(), root / "plain.pt")
    (root / "plain.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Plain(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())\n"
        "        self.answer = nn.Linear(8, 3)\n\n    def forward(self, x):\n"
        "        return self.answer(self.body(x).mean((2, 3)))\n\ndef make():\n    network = Plain()\n"
        f"    network.load_state_dict(torch.load({str(root / 'plain.pt')!r}, weights_only=True))\n    return network\n"
    )
    return [f"teacher={root / 'plain.py'}:make", *HALF]


def of_onnx(pictures, root: Path) -> list[str]:
    task = Task(labels=LABELS, input_shape=(3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    (root / "plain.onnx").write_bytes(to_onnx(taught(Plain(), pictures), task.inputs, 18))
    return [f"teacher=onnx:{root / 'plain.onnx'}", *HALF]


def of_several(pictures, root: Path) -> list[str]:
    """A network and a file, weighted."""
    own = "mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]"
    code, file = of_code(pictures, root)[0], of_onnx(pictures, root)[0].removeprefix("teacher=onnx:")
    members = f"{{name: python, code: {code.removeprefix('teacher=')}, {own}}}, {{name: onnx, file: {file}, {own}}}"
    return [f"teacher={{name: ensemble, members: [{members}], weights: [2, 1]}}"]


HALF = ("teacher.mean=[0.5,0.5,0.5]", "teacher.std=[0.5,0.5,0.5]")
TEACHERS: dict[str, Callable[..., list[str]]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "hf": of_hugging_face,
    "python": of_code,
    "onnx": of_onnx,
    "ensemble": of_several,
}


@pytest.fixture(scope="module")
def made(pictures, tmp_path_factory):
    """Makes data or a teacher once, and gives the settings that choose it."""
    known: dict[str, list[str]] = {}

    def make(kind: str, table: dict[str, Callable[..., list[str]]], name: str) -> list[str]:
        key = f"{kind}_{name}"
        if key not in known:
            known[key] = table[name](pictures, tmp_path_factory.mktemp(key))
        return known[key]

    return make


def config(data: str, teacher: str, made) -> RunConfig:
    given = [*made("data", DATA, data), f"data.size={SIDE}", "data.resize=stretch", *made("teacher", TEACHERS, teacher)]
    return load_config(settings=[*SETTINGS, *given])


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("data", DATA)
def test_every_teacher_teaches_from_data_to_a_bundle(data, teacher, made, pictures, tmp_path):
    with new_run(config(data, teacher, made), tmp_path) as run:
        outcome = run_chain(run)
    assert RunDir.view(run.root).read("teacher", TeacherResult).validation.accuracy > 0.8
    assert verify(outcome.bundle).problems == ()
    assert outcome.tested.shipped.accuracy > 0.6
    path = tmp_path / "picture.png"
    Image.fromarray(pictures[2][0]).save(path)
    [answer] = predict(open_bundle(outcome.bundle), [str(path)])
    told = subprocess.run(
        [sys.executable, str(outcome.bundle / "run.py"), str(path)], capture_output=True, text=True, timeout=120
    )
    assert told.stdout.strip() == answer.label, told.stderr
