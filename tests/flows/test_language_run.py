"""The whole chain on a language task: what ships continues a prompt, and verifies."""

import json
import re
import subprocess
import sys

import pytest

from edgestill.export.bundle.verify import verify
from edgestill.flows.bundle import Bundle
from edgestill.flows.chain import sentence, stages_of
from edgestill.flows.config import config_of, load_config
from edgestill.flows.runner import new_run, run_chain
from edgestill.flows.show import show_run
from edgestill.flows.stages.results import ReportResult
from edgestill.pipeline.errors import ConfigError

TINY = {
    "data.count": "240",
    "data.letters": "3",
    "data.largest": "9",
    "data.kinds": "[reverse, sort]",
    "teacher.architecture": "causal_transformer_3x64",
    "teacher.training.epochs": "2",
    "search.space.depth": "[1]",
    "search.space.heads": "[1, 2]",
    "search.space.head_width": "[4]",
    "search.evaluations": "4",
    "search.draws": "1",
    "search.baselines": "[params]",
    "search.batch_size": "16",
    "search.shortlist": "2",
    "search.tournament.epochs": "1",
    "tune.trials": "2",
    "tune.epochs": "1",
    "tune.min_epochs": "1",
    "distill.training.epochs": "3",
    "profile.timing.duration_s": "0.05",
    "profile.timing.min_samples": "70",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = load_config(preset="strings", settings=[f"{key}={value}" for key, value in TINY.items()])
    with new_run(config, tmp_path_factory.mktemp("runs")) as run:
        run_chain(run)
    return run


def shown(run):
    """Words of each stage in the terminal, and of `show`."""
    return "\n".join([*(sentence(stage.read(run)) for stage in stages_of(config_of(run))), show_run(run)])


@pytest.mark.engines
def test_what_ships_verifies_and_continues_a_prompt(run):
    bundle = run.root / "bundle"
    verdict = verify(bundle)
    assert not verdict.problems, verdict.problems
    done = subprocess.run(
        [sys.executable, "run.py", "sort cab="], cwd=bundle, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert Bundle(bundle).predict(["sort cab="])[0].label in Bundle(bundle).labels
    brief = ["--duration", "0.05", "--repeats", "1", "--out", str(run.root / "p.json")]
    profiled = subprocess.run(
        [sys.executable, "profile_device.py", *brief],
        cwd=bundle, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert profiled.returncode == 0, profiled.stderr
    assert "continue" in (bundle / "MODEL_CARD.md").read_text()


@pytest.mark.engines
def test_the_report_tells_exact_answers_beside_next_tokens(run):
    result = run.read("report", ReportResult, movable="bundle")
    assert result.generated is not None
    assert result.generated.n > 20
    page = (run.root / "report.html").read_text()
    assert "Exact answers to" in page
    assert "Next-token accuracy" in page
    assert "most frequent token" in page
    for words in (page, (run.root / "bundle" / "MODEL_CARD.md").read_text(), shown(run)):
        told = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", words, flags=re.DOTALL)
        assert re.findall(r".{30}\bclass(?:es)?\b.{30}", told) == []
    described = json.loads((run.root / "bundle" / "bundle.json").read_text())["input"]
    assert described["past"][3] == "past_length"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("distill.methods=[lelp]", "lelp cannot teach a language model"),
        ("distill.driver=generations", "driver 'generations' cannot train a language model"),
        ("distill.driver={name: rollout}\ndistill.methods=[none]", "own samples, which have none"),
        ("distill.methods=[rlad]", "'rlad' needs 2 or more of the student's own samples"),
        ("distill.methods=[rlad]\ndistill.driver=rollout", "'rollout' as set takes 1"),
        ("distill.methods=[opsd]\ndistill.driver=rollout", "one with random weights knows nothing"),
        ("export.formats=[fp32, fp16]", "fp16 cannot hold a network for data of kind 'lm'"),
        ("prune.method=l1", "students of 'causal_transformer' have none"),
        ("qat.mode=always", "cannot fine-tune a language model"),
        ("device.compile=on", "device.compile do not go with language models"),
        ("distill.training.balance=weights", "tokens are no classes"),
    ],
)
def test_what_does_not_go_with_language_is_refused_at_once(setting, said):
    with pytest.raises(ConfigError, match=said):
        load_config(preset="strings", settings=setting.split("\n"))


def test_a_driver_that_continues_prompts_is_refused_without_prompts():
    with pytest.raises(ConfigError, match="'rollout' cannot train on data of kind 'image'"):
        load_config(preset="digits", settings=["distill.driver=rollout"])
    with pytest.raises(ConfigError, match="rows_at_once is for language models"):
        load_config(preset="digits", settings=["distill.rows_at_once=8"])


def test_a_method_for_language_models_is_refused_for_images_at_once():
    with pytest.raises(ConfigError, match="sequence_kd cannot learn from data of kind 'image'"):
        load_config(preset="digits", settings=["distill.methods=[sequence_kd]"])


def test_an_image_students_teacher_and_space_are_lent_to_prompts_of_ones_own(tmp_path):
    (tmp_path / "book.txt").write_text("a text " * 50)
    config = load_config(settings=["data.name=prompts", f"data.path={tmp_path / 'book.txt'}"])
    assert config.search.space.name == "causal_transformer"
    assert config.export.formats == ("fp32", "int8_dynamic")
