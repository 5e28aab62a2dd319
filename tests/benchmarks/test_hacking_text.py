"""The laboratory of texts: its truth is the chain that drew them, and a student of the truth is not hacked."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import hacking_text
from lib.chains import Chain

from edgestill.distill.hacking import hacking
from edgestill.pipeline.data.sequences import batch_of_texts


def test_the_truth_at_each_letter_is_how_often_it_follows_the_one_before():
    chain, generator = Chain(3, letters=4, length=10), torch.Generator().manual_seed(0)
    texts = chain.texts(chain.prompts(4000, generator), generator)
    batch = batch_of_texts(texts)
    truth = chain.log_truth(batch).exp()
    torch.testing.assert_close(truth.sum(1), torch.ones(len(truth)))
    counts = torch.zeros(7, 7)
    for place in range(2, 10):
        before = texts[:, place - 1] if place > 2 else texts[:, 0]
        counts.index_put_((before, texts[:, place]), torch.ones(len(texts)), accumulate=True)
    text, place = batch.rows.unbind(1)
    last = torch.where(place == 1, texts[text, 0], texts[text, place])
    for letter in range(3, 7):
        seen = counts[letter] / counts[letter].sum()
        torch.testing.assert_close(truth[last == letter][0], seen, atol=0.02, rtol=0)


def test_a_student_of_the_truth_has_one_distance_and_one_of_a_teacher_two():
    for case in hacking_text.CASES[:2]:
        proxy, golden = hacking_text.curves(case, 0, 15)
        assert len(proxy) == len(golden) == 3
        assert (proxy == pytest.approx(golden, rel=1e-6)) == case.taught_by_truth
        if case.taught_by_truth:
            assert not hacking(proxy, golden).is_hacked
