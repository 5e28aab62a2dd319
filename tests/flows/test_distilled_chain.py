"""The whole chain with a method in every slot: tuned, distilled, exported and bundled."""

import pytest

from edgestill.distill.result import TuneResult
from edgestill.export.bundle.verify import verify
from edgestill.flows.config import load_config
from edgestill.flows.outcome import Outcome
from edgestill.flows.runner import new_run, run_chain
from edgestill.pipeline.runs.rundir import RunDir

pytestmark = pytest.mark.engines

METHODS = (
    "{name: hard, warmup_steps: 1, every: 4, images: 4}",
    "{name: lelp, subclasses: 2}",
    "{name: kd_aif, warmup_epochs: 1}",
)
SETTINGS = (
    "device.threads=1",
    "teacher.architecture=resnet8",
    "teacher.training.epochs=1",
    "teacher.training.batch_size=256",
    "search.space.widths=[[4],[4],[8]]",
    "search.space.blocks=[[1],[1],[1]]",
    "search.draws=1",
    "search.baselines=[]",
    "search.shortlist=1",
    f"distill.methods=[{', '.join(METHODS)}]",
    "distill.training.epochs=2",
    "distill.training.batch_size=256",
    "tune.trials=2",
    "tune.epochs=1",
    "tune.min_epochs=1",
    "export.formats=[fp32]",
    "profile.timing.duration_s=0.05",
    "profile.timing.min_samples=70",
    "baselines.enabled=false",
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with new_run(load_config(preset="digits", settings=SETTINGS), tmp_path_factory.mktemp("runs")) as run:
        return run_chain(run)


def test_hard_lelp_and_kd_aif_go_through_tuning_distillation_export_and_bundle(outcome: Outcome) -> None:
    tuned = RunDir.view(outcome.run).read("tune", TuneResult)
    assert {name.partition(".")[0] for name in tuned.best} == {"training", "hard", "lelp", "kd_aif"}
    assert [method["name"] for method in outcome.distilled.methods] == ["hard", "lelp", "kd_aif"]
    assert {name.partition(".")[0] for name in outcome.distilled.measures} == {"hard", "kd_aif"}
    assert len(outcome.distilled.exhibits) == 3
    assert verify(outcome.bundle).problems == ()
