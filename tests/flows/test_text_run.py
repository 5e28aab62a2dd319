"""The whole chain on text: what ships answers for a sentence, and an interrupted run ends with the same bits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from edgestill.export.bundle.verify import verify
from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.runner import new_run, run_chain
from edgestill.flows.stages.results import DataResult
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.runs.checkpoint import read_metadata
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TeacherConfig, build_teacher, load_teacher
from edgestill.pipeline.torchvision_compat import repair

NAMES = stage_names(RunConfig())  # of a run as configured by default
pytestmark = pytest.mark.engines

WORDS = {"praise": ("lovely", "moving", "fine"), "blame": ("dull", "empty", "poor")}
TINY = {
    "data.columns": "null",
    "data.validation": "null",
    "data.test": "null",
    "data.tokenizer": "{kind: wordpiece, vocab_size: 120}",
    "teacher.training.epochs": "2",
    "search.space.heads": "[1, 2]",
    "search.space.head_width": "[4]",
    "search.space.depth": "[1]",
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
    "baselines.seeds": "1",
}


def write_texts(path: Path, count: int = 240) -> Path:
    lines = []
    for n in range(count):
        label = ("praise", "blame")[n % 2]
        filler = " ".join(("film", "story", "it", "is", "was")[(n // k) % 5] for k in (1, 2, 3, 5)[: 1 + n % 4])
        lines.append(f"{filler} {WORDS[label][n % 3]}\t{label}")
    path.write_text("sentence\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_config(data: Path, **changes: str) -> RunConfig:
    settings = TINY | {"data.path": str(data)} | {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(preset="sst2", settings=[f"{key}={value}" for key, value in settings.items()])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("text")
    with new_run(tiny_config(write_texts(folder / "texts.tsv")), folder / "runs") as run:
        run_chain(run)
    return RunDir.view(run.root)


def ask(bundle: Path, *texts: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(bundle / "run.py"), *texts]
    return subprocess.run(command, input=given, cwd=bundle, capture_output=True, text=True, timeout=60)


def test_what_ships_is_whole_and_says_what_it_takes(finished: RunDir) -> None:
    bundle = json.loads((finished.root / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    names = {path.name for path in (finished.root / "bundle").iterdir()}
    assert {"model.onnx", "labels.txt", "MODEL_CARD.md", "run.py", "tokenizer.json"} <= names
    assert verify(finished.root / "bundle").problems == ()
    assert bundle["input"]["names"] == ["input_ids", "attention_mask"]
    assert Task.model_validate(bundle["task"]).kind == "text"
    card = (finished.root / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "A text classifier for 2 classes" in card
    kept = (finished.root / "data" / "tokenizer.json").read_bytes()
    assert (finished.root / "bundle" / "tokenizer.json").read_bytes() == kept


def test_the_shipped_accuracy_is_what_tokenizer_and_file_do_on_the_test_texts(finished: RunDir) -> None:
    config, bundle = finished.config(RunConfig), finished.root / "bundle"
    kept = (bundle / "tokenizer.json").read_text(encoding="utf-8")
    test = load_test(config.data, config.seed, kept)
    said = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(bundle / said["models"][said["default"]]["file"])
    tokenizer = Tokenizer.from_str(kept)
    answers = []
    for row in test.images.numpy():
        ids = np.array([tokenizer.encode(tokenizer.decode(row[row > 0])).ids], np.int64)  # unpadded, from text
        logits = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        answers.append(int(logits.argmax()))
    found = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["metrics"]["shipped"]
    assert found == {"test_accuracy": float(np.mean(answers == test.targets.numpy())), "n": len(test)}


def test_run_py_answers_for_sentences_and_needs_no_more_than_it_says(finished: RunDir) -> None:
    bundle = finished.root / "bundle"
    one = ask(bundle, "a moving film")
    assert one.returncode == 0, one.stderr
    assert one.stdout.strip() in WORDS
    several = ask(bundle, "a moving film", "it was dull")
    assert several.stdout.splitlines()[0] == f"a moving film: {one.stdout.strip()}"
    assert ask(bundle, "-", given="a moving film\n\nit was dull\n").stdout == several.stdout
    assert ask(bundle).returncode == ask(bundle, " ").returncode == 2
    source = (bundle / "run.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, flags=re.MULTILINE))
    assert imported <= {"numpy", "onnxruntime", "tokenizers"} | set(sys.stdlib_module_names)


def test_no_figure_of_the_report_is_called_an_image(finished: RunDir) -> None:
    page = (finished.root / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"<(style|svg|script).*?</\1>", "", page, flags=re.DOTALL)
    assert "test examples" in shown
    assert not re.findall(r"[^.>]*\bimages?\b[^.<]*", shown)


def test_a_run_that_failed_in_its_stages_goes_on_to_the_same_bits(finished: RunDir, tmp_path: Path) -> None:
    def stopping_in(stage: str):
        def stop(name: str, work):
            if name == stage:
                raise KeyboardInterrupt
            return work()

        return stop

    with pytest.raises(KeyboardInterrupt), new_run(finished.config(RunConfig), tmp_path) as run:
        run_chain(run, call=stopping_in("teacher"))
    tokenizer = (run.root / "data" / "tokenizer.json").read_bytes()
    for stage in ("tune", "export", "profile"):
        with RunDir.open(run.root) as again, pytest.raises(KeyboardInterrupt):
            run_chain(again, call=stopping_in(stage))
        assert list(again.manifest.stages) == list(NAMES[: NAMES.index(stage)])
    assert (run.root / "data" / "tokenizer.json").read_bytes() == tokenizer
    for file in ("teacher/weights.safetensors", "distill/weights.safetensors", "export/student.onnx"):
        assert (run.root / file).read_bytes() == (finished.root / file).read_bytes()


# The teacher


def test_the_built_in_teacher_drops_out_in_training_alone(make_token_task) -> None:
    task = make_token_task()
    teacher = build_teacher(TeacherConfig(architecture="text_transformer_2x128", dropout=0.5), task)
    ids = torch.randint(1, 20, (3, 10))
    assert not torch.equal(teacher(ids), teacher(ids))
    teacher.eval()
    assert torch.equal(teacher(ids), teacher(ids))


def test_weights_of_another_tokenizer_are_refused(finished: RunDir) -> None:
    path = finished.root / "teacher" / "weights.safetensors"
    task = finished.read("data", DataResult).task
    config = finished.config(RunConfig).teacher
    assert read_metadata(path)["tokenizer_sha256"] == task.tokenizer_sha256
    load_teacher(config, task, path)
    with pytest.raises(CheckpointError, match="trained with another tokenizer"):
        load_teacher(config, task.model_copy(update={"tokenizer_sha256": "0" * 64}), path)


def test_a_teacher_of_images_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    data = write_texts(tmp_path / "texts.tsv", 60)
    with (
        pytest.raises(ConfigError, match=r"resnet20 takes no text; those that do: text_transformer_2x128"),
        new_run(tiny_config(data, teacher__architecture="resnet20"), tmp_path / "runs") as run,
    ):
        run_chain(run)
    assert not list((tmp_path / "runs").glob("*/manifest.json"))


def test_a_hugging_face_folder_brings_its_tokenizer_and_the_run_ships(tmp_path: Path, finished: RunDir) -> None:
    repair()
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "bert"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=200, max_position_embeddings=48, num_labels=2, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = (finished.root / "data" / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    data = write_texts(tmp_path / "texts.tsv")
    given = {
        "teacher__folder": str(folder),
        "teacher__check": "off",
        "tune__enabled": "false",
        "search__shortlist": "0",
        "baselines__enabled": "false",
    }
    with pytest.raises(ConfigError, match=r"data\.tokenizer is set, and the teacher has its own"):
        tiny_config(data, **given)
    given["data__tokenizer"] = "{}"
    with new_run(tiny_config(data, **given), tmp_path / "runs") as run:
        outcome = run_chain(run)
    assert not outcome.teacher.trained_here
    shipped = Tokenizer.from_file(str(run.root / "bundle" / "tokenizer.json")).get_vocab()
    assert shipped == Tokenizer.from_str(tokenizer).get_vocab()
    assert "bert" in (run.root / "report.html").read_text(encoding="utf-8")
