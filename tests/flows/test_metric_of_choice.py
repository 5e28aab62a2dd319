"""Where the mean recall chooses, it chooses between INT8 files too, and sentences name it."""

import numpy as np

from edgestill.flows.stages.qat import Qat, _kept
from edgestill.flows.stages.results import QatResult
from edgestill.flows.wording.verdicts import lead_words
from edgestill.pipeline.training.metrics import Metrics, packed, unpacked
from edgestill.search.tournament import Lead


def metrics(accuracy, recall):
    return Metrics(accuracy=accuracy, cross_entropy=0.1, n=400, balanced_accuracy=recall)


def test_the_better_int8_file_is_the_one_of_higher_mean_recall_and_the_sentence_says_so():
    fp32, before, after = metrics(0.96, 0.72), metrics(0.95, 0.6), metrics(0.94, 0.719)
    found = _kept(before, after, fp32, 0.005)
    assert (found.kept, found.passes) == ("after", True)
    assert not _kept(before, metrics(0.96, 0.714), fp32, 0.005).passes
    plain = [each.model_copy(update={"balanced_accuracy": None}) for each in (before, after, fp32)]
    assert _kept(*plain, 0.005).kept == "before"
    told = Qat().sentence(QatResult(mode="auto", allowed=0.005, fp32=fp32, formats={"int8": found}))
    assert told.startswith("fp32 96.00% (mean recall 72.00%) on validation, int8 95.00% (mean recall 60.00%) before")


def test_a_lead_says_its_unit():
    lead = Lead(over="b", accuracy=0.1, won=3, lost=0, comparisons=1)
    assert lead_words(lead) == "10.0 points ahead of b, within noise"
    surely = lead.model_copy(update={"interval": (0.01, 0.2)})
    assert lead_words(surely) == "10.0 points of mean recall ahead of b, more than noise"


def test_answers_are_unpacked_as_they_were_packed():
    for n in (1, 8, 13):
        right = np.random.default_rng(n).random(n) < 0.5
        assert (unpacked(packed(right), n) == right).all()
