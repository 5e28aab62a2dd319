"""A run repeats bit for bit in one process, whatever was drawn from its generators before."""

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from edgestill.flows.config import load_config
from edgestill.flows.runner import new_run, run_chain
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.runs.rundir import file_digest

pytestmark = pytest.mark.engines

SETTINGS = (
    "device.threads=1",
    "teacher.architecture=resnet8",
    "teacher.training.epochs=1",
    "teacher.training.batch_size=256",
    "search.space.widths=[[4],[4,6],[8]]",
    "search.space.blocks=[[1],[1],[1]]",
    "search.draws=1",
    "search.scorer=diswot",
    "search.teacher_weights=trained",
    "search.baselines=[]",
    "search.shortlist=2",
    "search.tournament.epochs=1",
    "distill.methods=[{name: hard, warmup_steps: 1, every: 4, images: 4}, {name: lelp, subclasses: 2}, "
    "{name: kd_aif, warmup_epochs: 1}]",
    "distill.training.epochs=2",
    "distill.training.batch_size=256",
    "tune.enabled=false",
    "export.formats=[fp32]",
)
FILES = ("teacher/weights.safetensors", "distill/weights.safetensors", "distill/methods.pt", "export/student.onnx")


class _OverError(Exception):
    pass


def _until_exported(stage, work):
    if stage == "qat":
        raise _OverError
    return work()


class Drawing(torch.nn.Module):
    """Draws when it is made, and at every step of training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", 1 + 0.1 * (torch.rand(()) + random.random() + np.random.rand()))  # noqa: NPY002

    def forward(self, inputs):
        noise = 1 + 0.1 * (np.random.rand() + random.random()) if self.training else 1.0  # noqa: NPY002
        return torch.nn.functional.dropout(inputs, 0.1, self.training) * self.scale * noise


def run(out: Path, state: int) -> tuple[list[dict[str, object]], list[str]]:
    """The search's journal but for its seconds, which its seals cover, and the digests of what came of it."""
    torch.manual_seed(state)
    np.random.seed(state)  # noqa: NPY002
    random.seed(state)
    before = torch.get_rng_state(), copy.deepcopy(np.random.get_state()[1]), random.getstate()  # noqa: NPY002
    config = load_config(preset="digits", settings=SETTINGS)
    with new_run(config, out) as held, pytest.raises(_OverError):
        run_chain(held, call=_until_exported)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    lines = (held.root / "search" / "history.jsonl").read_text().splitlines()
    journal = [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "seal")} for line in lines
    ]
    return journal, [file_digest(held.root / name) for name in FILES]


def test_a_run_repeats_whatever_the_process_drew_before_and_draws_nothing_from_its_streams(tmp_path, monkeypatch):
    """Teacher and students draw from them in their first layer."""
    make = CifarResNet.__init__

    def planted(network, *given, **settings):
        make(network, *given, **settings)
        network.conv1 = torch.nn.Sequential(network.conv1, Drawing())

    monkeypatch.setattr(CifarResNet, "__init__", planted)
    first, second = (run(tmp_path / str(state), state) for state in (1, 2))
    assert first[0] == second[0]
    assert first[1] == second[1]
