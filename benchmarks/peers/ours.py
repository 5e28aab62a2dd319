"""The stage `distill` of a run, in which epoch.py times epochs: THREADS WORKERS EPOCHS BATCH SIDE [SETTING …].

The data, the search of one student and the teacher come before it, and the process ends with it.
"""

import json
import os
import sys
from pathlib import Path

import edgestill
from edgestill.flows.progress import Silent


class _Marks(Silent):
    def __init__(self, epochs: int) -> None:
        self._epochs, self._stage = epochs, ""

    def begin(self, stage: str, index: int, count: int) -> None:
        self._stage = stage

    def tick(self, done: int, total: int, note: str) -> None:
        if self._stage == "distill" and note.startswith("validation"):
            print(f"epoch {done} is over", flush=True)
            if done == self._epochs:
                os._exit(0)

    def end(self, stage: str, seconds: float, sentence: str, reused: bool) -> None:
        if stage == "data":
            result = max(Path("runs").glob("*/data/result.json"))  # the newest run
            print(f"images {json.loads(result.read_text())['sizes']['train']}", flush=True)


def settings(threads: str, workers: str, epochs: str, batch: str, side: str) -> list[str]:
    return [
        f"device.threads={threads}", "data={name: folder, path: images, augment: {crop: [0.25, 1.0], flip: true}}",
        f"data.size={side}", "teacher={name: timm, model: resnet34, weights: teacher.pt, size: data}",
        "teacher.check=off", "search.space={name: backbones, models: [resnet18], resolution: [null]}",
        "search.scorer=params", "search.baselines=[]", "search.shortlist=0", "search.evaluations=1", "search.draws=1",
        "tune.enabled=false", "baselines.enabled=false", "search.budget.max_params=100M",
        "distill.methods=[{name: kd, temperature: 4.0, distill_weight: 0.5}]", f"distill.training.epochs={epochs}",
        f"distill.training.batch_size={batch}", "distill.training.learning_rate=0.01", "export.formats=[fp32]",
    ]  # fmt: skip


if __name__ == "__main__":
    epochs = int(sys.argv[3])
    edgestill.compress(settings=[*settings(*sys.argv[1:6]), *sys.argv[6:]], progress=_Marks(epochs))
