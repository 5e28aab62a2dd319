"""Language models as files: with a cache and without, they continue prompts as their networks do."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from edgestill.export.bundle.scripts.join import run_script
from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Source
from edgestill.export.generation import (
    Continuation,
    Question,
    exact_match,
    generated,
    greedy,
    questions,
    require_same_text,
    speed_of,
)
from edgestill.export.onnx.admission import check_onnx_bytes
from edgestill.export.onnx.interface import ends_of
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity
from edgestill.export.tested.examine import network_run
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import BundleError, ExportError
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.timing.timing import TimingConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits():
    return load_splits(StringsConfig(count=60, letters=3), seed=0)


@pytest.fixture(scope="module", params=[0, 1], ids=["own", "tied"])
def network(request, splits):
    with drawn_from(3):
        return CausalTransformer(splits.task, depth=2, heads=2, head_width=6, feed_forward=2, tied=request.param).eval()


@pytest.fixture(scope="module")
def file(network, splits, tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "model.onnx"
    path.write_bytes(to_onnx(network, splits.task.inputs, 20))
    return path


def with_cache(task, network):
    return task.model_copy(update={"cache": network.cache_shape})


def test_the_file_is_the_network_on_prompts_of_any_length(network, file, splits):
    parity = check_parity(network, file, {"validation": splits.validation}, splits.task.inputs)
    assert parity.max_abs_difference < 1e-4
    assert parity.top1_agreement == 1


def test_the_file_with_its_cache_continues_as_the_network_without(network, file, splits):
    require_same_text(network_run(network, CPU), file, splits.validation.texts, splits.task.inputs.length, 1e-4)


def test_another_network_is_told_apart_by_its_text(file, splits):
    with drawn_from(4):
        other = CausalTransformer(splits.task, depth=2, heads=2, head_width=6, feed_forward=2).eval()
    with pytest.raises(ExportError, match="does not continue as the network does: token 1"):
        require_same_text(network_run(other, CPU), file, splits.validation.texts, splits.task.inputs.length, 1e-4)


def test_the_file_passes_the_gate_for_files_from_elsewhere(network, file, splits):
    task = with_cache(splits.task, network)
    check_onnx_bytes(file.read_bytes(), "model.onnx", ends_of(task))
    wrong = task.model_copy(update={"cache": (3, 2, 6)})
    with pytest.raises(BundleError, match="past"):
        check_onnx_bytes(file.read_bytes(), "model.onnx", ends_of(wrong))


def test_eight_bit_weights_keep_the_cache_and_most_answers(network, file, splits, tmp_path):
    form = FORMATS["int8_dynamic"]
    source = Source(file, network, splits.task, splits.reference.images.numpy())
    data = form.build(source, ExportConfig())[".onnx"]
    (tmp_path / "model.int8_dynamic.onnx").write_bytes(data)
    check_onnx_bytes(data, "model.onnx", ends_of(with_cache(splits.task, network)))
    inputs = splits.validation.images.numpy()
    expected, found = runner(file)(inputs), runner(tmp_path / "model.int8_dynamic.onnx")(inputs)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert Continuation(tmp_path / "model.int8_dynamic.onnx").has_cache


def test_prompts_end_with_the_start_and_answers_with_the_end():
    texts = torch.tensor([[5, 6, START, 7, END, 0], [START, 7, 8, 9, 4, 5], [5, START, 7, 8, 9, 4]])
    assert questions(texts) == [Question([5, 6, START], [7, END])]


def test_greedy_goes_on_to_the_end_or_to_the_longest_text():
    def run(ids):  # the last token plus one, up to 9; END after 9
        last = ids[np.arange(len(ids)), (ids != 0).sum(1) - 1]
        return np.eye(12)[np.where(last >= 9, END, last + 1)]

    assert greedy(run, [[5, 7], [3]], 5) == [[8, 9, END], [4, 5, 6, 7]]
    asked = [Question([5, 7], [8, 9, END]), Question([3], [4, END])]
    assert exact_match(greedy(run, [q.prompt for q in asked], 5), asked) == 0.5


def test_samples_stand_side_by_side(network, splits):
    run = network_run(network, CPU)
    found = generated((run,) * 4, splits.validation.texts, splits.task.inputs.length, splits.coder.decode_all)
    assert found.n == len(splits.validation.texts)
    assert found.samples[0].teacher == found.samples[0].shipped == found.samples[0].before
    assert found.samples[0].prompt.endswith("=")
    assert found.same_as_teacher == 1
    assert found.same_mistakes == (None if found.teacher == 1 else 1)


def test_speed_is_of_the_first_token_and_of_those_after_it(file, splits):
    timing = TimingConfig(warmup_s=0.0, duration_s=0.02, min_samples=11)
    speed = speed_of(file, splits.validation.texts, splits.task.inputs.length, 1, timing)
    assert speed.tokens_per_second == pytest.approx(1000 / speed.next_token_ms)


@pytest.fixture(scope="module")
def folder(file, splits, tmp_path_factory):
    """As much of a bundle as its script reads."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "run.py").write_text(run_script("run_prompts.py"))
    (folder / "model.onnx").write_bytes(file.read_bytes())
    (folder / "tokenizer.json").write_text(splits.coder.json)
    model = {"file": "model.onnx", "precision": "fp32", "format": "fp32"}
    card = {"models": {"fp32": model}, "default": "fp32", "input": {"max_length": splits.task.inputs.length}}
    (folder / "bundle.json").write_text(json.dumps(card))
    return folder


def told(folder, *arguments):
    return subprocess.run(
        [sys.executable, "run.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_shipped_script_continues_prompts_as_the_network_does(network, folder, splits):
    asked, length = questions(splits.validation.texts)[:2], splits.task.inputs.length
    prompts = [splits.coder.decode(question.prompt) for question in asked]
    answers = greedy(network_run(network, CPU), [question.prompt for question in asked], length)
    texts = [splits.coder.decode([token for token in answer if token != END]) for answer in answers]
    said = told(folder, *prompts)
    assert said.stdout.splitlines() == [f"{prompt}{text}" for prompt, text in zip(prompts, texts, strict=True)]


def test_the_shipped_script_draws_by_seed_and_refuses_a_prompt_that_leaves_no_room(folder):
    drawn = [told(folder, "--temperature", "5", "--seed", seed, "sort ba=").stdout for seed in "001"]
    assert drawn[0] == drawn[1] != drawn[2]
    long = told(folder, "1+1=" * 20)
    assert long.returncode == 2
    assert "leave no room" in long.stderr
