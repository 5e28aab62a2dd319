"""The tournament: successive halving by hand, by property, and after interruptions at every training."""

import random

import numpy as np
import pytest

from edgestill.pipeline.errors import TrainingError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.training.metrics import packed
from edgestill.search.budget import Budget
from edgestill.search.config import TournamentConfig
from edgestill.search.result import Candidate, SearchResult
from edgestill.search.tournament import TournamentResult, Trained, play, rungs, shortlist


def candidate(name, score, params=1000, scorer="nwot"):
    return Candidate(architecture=name, cost=Cost(params=params, flops=1), scores={scorer: score}, std={})


def search(scores, params=None, picks=None):
    """A finished search by nwot; `scores` and `params` by architecture."""
    candidates = tuple(candidate(name, score, (params or {}).get(name, 1000)) for name, score in scores.items())
    winner = max(candidates, key=lambda c: c.scores["nwot"])
    return SearchResult(
        space="resnet",
        space_size=100,
        scorer="nwot",
        combine="sum",
        budget=Budget(),
        winner=winner,
        strategy="random",
        front=(winner,),
        picks=picks or {},
        evaluated=len(candidates),
        exhaustive=False,
        failures=(),
        candidates=candidates,
        notes=(),
    )


class Training:
    """Accuracies by architecture, one a rung; like the real one it goes on from the rung before and from a kill."""

    def __init__(self, accuracies, fails=(), kill_at=None):
        self.accuracies, self.fails, self.kill_at = accuracies, set(fails), kill_at
        self.calls = []

    def __call__(self, candidate, rung, epochs):
        architecture = candidate.architecture
        if len(self.calls) == self.kill_at:
            self.kill_at = None
            raise KeyboardInterrupt
        assert [call[1] for call in self.calls if call[0] == architecture] == list(range(rung)), "a rung was left out"
        self.calls.append((architecture, rung, epochs))
        if (architecture, rung) in self.fails:
            raise TrainingError(f"the loss of {architecture} became nan")
        accuracy = self.accuracies[architecture][rung]
        return Trained(accuracy, 1.0, packed(np.arange(100) < round(100 * accuracy)))

    @property
    def epochs(self):
        return sum(epochs for _, _, epochs in self.calls)


SIX = search({"a": 6, "b": 5, "c": 4, "d": 3, "e": 2, "f": 1}, {"f": 9000})
ACCURACIES = {
    "a": (0.50, 0.60, 0.70),
    "b": (0.90, 0.91, 0.92),
    "c": (0.80, 0.95, 0.90),
    "d": (0.40, 0.99, 0.99),
    "f": (0.70, 0.80, 0.99),
}


def test_successive_halving_by_hand():
    """a b c d by score and f by parameters train 2 epochs; of 5, the best 2 (b, c) train 4 more; c wins at 0.95."""
    train = Training(ACCURACIES)
    result = play(SIX, 4, TournamentConfig(epochs=2), train)
    assert train.calls == [*((name, 0, 2) for name in "abcdf"), ("b", 1, 4), ("c", 1, 4)]
    assert result.winner.architecture == "c"
    assert result.change == "from a to c"
    assert [(rung.epochs, rung.entrants) for rung in result.rungs] == [(2, 5), (4, 2)]
    assert result.epochs == 5 * 2 + 2 * 4
    assert result.seconds == 7
    assert {e.candidate.architecture: e.accuracies for e in result.entrants} == {
        "a": (0.50,),
        "b": (0.90, 0.91),
        "c": (0.80, 0.95),
        "d": (0.40,),
        "f": (0.70,),
    }


def test_the_shortlist_is_ranked_by_score_and_the_largest_comes_beside_it():
    entrants = shortlist(SIX, 4)
    assert [(e.candidate.architecture, e.rank, e.most_params) for e in entrants] == [
        ("a", 1, False),
        ("b", 2, False),
        ("c", 3, False),
        ("d", 4, False),
        ("f", 6, True),
    ]


def test_earlier_students_that_the_search_scored_take_part_once():
    entrants = shortlist(SIX, 2, beside=("e", "a", "unknown"))
    assert [(e.candidate.architecture, e.rank) for e in entrants] == [("a", 1), ("b", 2), ("f", 6), ("e", 5)]


def test_the_largest_is_the_params_baselines_pick_even_if_the_search_did_not_meet_it():
    picks = {"params": candidate("z", 9999, 9999, "params")}
    entrants = shortlist(search({"a": 2, "b": 1}, picks=picks), 4)
    assert [(e.candidate.architecture, e.rank, e.most_params) for e in entrants] == [
        ("a", 1, False),
        ("b", 2, False),
        ("z", None, True),
    ]


def test_a_params_pick_among_the_best_by_score_enters_once():
    entrants = shortlist(search({"a": 3, "b": 2, "c": 1}, {"b": 5000}), 2)
    assert [(e.candidate.architecture, e.most_params) for e in entrants] == [("a", False), ("b", True)]


def test_the_searchs_winner_enters_first_whatever_its_score():
    found = SIX.model_copy(update={"winner": SIX.candidates[4]})
    assert [e.candidate.architecture for e in shortlist(found, 2)] == ["e", "a", "f"]


def test_equal_accuracies_go_to_the_better_rank():
    flat = dict.fromkeys("abcdf", (0.9, 0.9, 0.9))
    result = play(SIX, 4, TournamentConfig(), Training(flat))
    assert result.winner.architecture == "a"
    assert not result.changed
    assert result.change == "kept"
    assert [e.candidate.architecture for e in result.entrants if len(e.accuracies) == 2] == ["a", "b"]


@pytest.mark.parametrize("count", [0, 1])
def test_a_shortlist_below_two_plays_no_tournament(count):
    train = Training({})
    result = play(SIX, count, TournamentConfig(), train)
    assert not result.enabled
    assert result.winner == SIX.winner
    assert train.calls == []


def test_a_single_student_is_not_trained():
    train = Training({})
    result = play(search({"a": 1}), 4, TournamentConfig(), train)
    assert (result.winner.architecture, result.rungs, train.calls) == ("a", (), [])


def test_an_entrant_that_fails_is_recorded_and_out():
    train = Training(ACCURACIES, fails=[("b", 0)])
    result = play(SIX, 4, TournamentConfig(), train)
    (failed,) = [e for e in result.entrants if e.failure]
    assert (failed.candidate.architecture, failed.failure) == ("b", "TrainingError: the loss of b became nan")
    assert [call[:2] for call in train.calls[5:]] == [("c", 1), ("f", 1)]
    assert result.winner.architecture == "c"
    assert result.epochs == train.epochs - 3


def test_if_the_last_rung_fails_the_best_of_the_rung_before_wins():
    result = play(SIX, 4, TournamentConfig(), Training(ACCURACIES, fails=[("b", 1), ("c", 1)]))
    assert result.winner.architecture == "f"  # 0.70, after b and c


def test_if_all_fail_the_searchs_winner_stays_with_a_note():
    train = Training(ACCURACIES, fails=[(name, 0) for name in "abcdf"])
    result = play(SIX, 4, TournamentConfig(), train)
    assert result.winner == SIX.winner
    assert result.notes == ("every entrant failed, so the search's winner stays",)
    assert (len(train.calls), result.epochs) == (5, 0)


def test_an_error_that_is_no_entrants_own_comes_through():
    def full(architecture, rung, epochs):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        play(SIX, 4, TournamentConfig(), full)


@pytest.mark.parametrize("reduction", [2, 3, 4])
@pytest.mark.parametrize("count", [2, 3, 7, 16, 17])
def test_epochs_and_survivors_follow_the_formula(count, reduction):
    """Rung k: n // r^k entrants, e r^k epochs; while more than one is left."""
    rng = random.Random(count * reduction)
    names = [f"s{i}" for i in range(count)]
    found = search({name: count - i for i, name in enumerate(names)})
    train = Training({name: [rng.random() for _ in range(6)] for name in names})
    config = TournamentConfig(epochs=3, reduction=reduction)
    result = play(found, count, config, train)
    expected = []
    while not expected or expected[-1][1] // reduction >= 2:
        k = len(expected)
        expected.append((3 * reduction**k, count // reduction**k))
    assert [(rung.epochs, rung.entrants) for rung in result.rungs] == expected
    assert [(rung.epochs, rung.entrants) for rung in rungs(count, config)] == expected
    assert train.epochs == result.epochs == sum(epochs * n for epochs, n in expected)
    last = [e for e in result.entrants if len(e.accuracies) == len(expected)]
    assert len(last) == expected[-1][1]
    assert max(last, key=lambda e: e.accuracies[-1]).candidate == result.winner
    for rung in range(len(expected) - 1):  # nobody who went on was worse than one who did not
        here = [e for e in result.entrants if len(e.accuracies) > rung]
        on = [e.accuracies[rung] for e in here if len(e.accuracies) > rung + 1]
        out = [e.accuracies[rung] for e in here if len(e.accuracies) == rung + 1]
        assert min(on) >= max(out)


@pytest.mark.parametrize("kill_at", range(7))
def test_a_tournament_killed_at_any_training_ends_as_an_undisturbed_one_and_repeats_nothing(kill_at):
    fails = [("a", 0)]
    undisturbed, whole = Training(ACCURACIES, fails), []
    expected = play(SIX, 4, TournamentConfig(), undisturbed, record=whole.append)
    train, journal = Training(ACCURACIES, fails, kill_at), []
    with pytest.raises(KeyboardInterrupt):
        play(SIX, 4, TournamentConfig(), train, record=journal.append)
    assert len(journal) == kill_at
    result = play(SIX, 4, TournamentConfig(), train, known=tuple(journal), record=journal.append)
    assert train.calls == undisturbed.calls
    without_time = [{**entry, "seconds": 0} for entry in journal]
    assert without_time == [{**entry, "seconds": 0} for entry in whole]
    assert result.model_copy(update={"seconds": 0, "entrants": ()}) == expected.model_copy(
        update={"seconds": 0, "entrants": ()}
    )
    assert [e.accuracies for e in result.entrants] == [e.accuracies for e in expected.entrants]
    assert result.leads == expected.leads != ()


def answers(right):
    """A training that tells which of the examples each student gets right, the same after each rung: `1101`."""

    def train(candidate, rung, epochs):
        bits = np.array([bit == "1" for bit in right[candidate.architecture]])
        return Trained(float(bits.mean()), 1.0, packed(bits))

    return train


def test_a_lead_counts_the_examples_that_one_of_the_two_alone_gets_right():
    right = {"a": "111110001100", "b": "111111110011", "c": "111000000000", "f": "000000000000"}
    result = play(search({"a": 3, "b": 2, "c": 1}), 3, TournamentConfig(), answers(right))
    (lead,) = result.leads  # a, the search's pick, is the next one
    assert (result.winner.architecture, lead.over, lead.won, lead.lost) == ("b", "a", 5, 2)
    assert lead.accuracy == pytest.approx(3 / 12)
    assert lead.is_noise


def test_a_lead_is_noise_unless_an_exact_sign_test_says_otherwise():
    """5 to 0 happens by chance in 2 / 32 of pairs, 6 to 0 in 2 / 64."""
    for alone, noise in ((5, True), (6, False)):
        right = {"a": "0" * alone + "1" * 50, "b": "1" * (alone + 50)}
        (lead,) = play(search({"a": 2, "b": 1}), 2, TournamentConfig(), answers(right)).leads
        assert (lead.won, lead.lost, lead.is_noise) == (alone, 0, noise)


def test_the_searchs_pick_is_compared_too_and_allows_for_all_that_could_have_overtaken_it():
    """c is 7 ahead of a, by chance 2 x 2^-7; for three that could have been 3 x 2 x 2^-7 = 0.047, for four 0.063."""
    ahead = {"c": "1" * 57, "b": "1" * 56 + "0", "a": "0" * 7 + "1" * 50, "d": "0" * 57}
    for count, noise in ((4, False), (5, True)):
        names = ["a", "b", "c", "d", "e"][:count]
        found = search({name: 9 - i for i, name in enumerate(names)})
        result = play(found, count, TournamentConfig(), answers(ahead | {"e": "0" * 57}))
        over_next, over_pick = result.leads
        assert (over_next.over, over_next.won, over_next.lost, over_next.is_noise) == ("b", 1, 0, True)
        assert (over_pick.over, over_pick.won, over_pick.comparisons) == ("a", 7, count - 1)
        assert over_pick.is_noise == noise


def test_a_lead_in_mean_recall_is_noise_if_its_interval_holds_0():
    """b is right on 6 examples more, of a class of 6 among 56: surely more by count, and by recall."""
    right, seen = {"a": "0" * 6 + "1" * 50, "b": "1" * 56}, []

    def interval(ours, theirs, comparisons):
        seen.append((ours, theirs, comparisons))
        return low, 0.9

    for low, noise in ((0.1, False), (-0.1, True)):
        played = play(search({"a": 2, "b": 1}), 2, TournamentConfig(), answers(right), interval=interval)
        (lead,) = played.leads
        assert (lead.interval, lead.is_noise) == ((low, 0.9), noise)
        assert TournamentResult.model_validate_json(played.model_dump_json()) == played
    ours, theirs = (packed(np.array([bit == "1" for bit in right[name]])) for name in "ba")
    assert seen[0] == (ours, theirs, 1)
    assert "interval" not in play(search({"a": 2, "b": 1}), 2, TournamentConfig(), answers(right)).model_dump_json()


def test_a_student_without_a_rival_has_no_lead():
    result = play(SIX, 4, TournamentConfig(), Training(ACCURACIES, fails=[(name, 0) for name in "abcd"]))
    assert (result.winner.architecture, result.leads) == ("f", ())


def test_a_journal_that_does_not_say_which_answers_were_right_is_trained_again():
    journal, train = [], Training(ACCURACIES)
    play(SIX, 4, TournamentConfig(), Training(ACCURACIES), record=journal.append)
    old = [{name: value for name, value in entry.items() if name != "right"} for entry in journal]
    assert play(SIX, 4, TournamentConfig(), train, known=old).leads
    assert len(train.calls) == 7


def test_progress_counts_epochs():
    told = []
    play(SIX, 4, TournamentConfig(epochs=2), Training(ACCURACIES), tick=lambda *what: told.append(what))
    assert [done for done, _, _ in told] == [0, 2, 4, 6, 8, 10, 14, 18]
    assert {total for _, total, _ in told} == {18}
