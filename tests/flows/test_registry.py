"""The registry of runs: the rule, its allowance for many looks, the way back, and retention."""

import datetime
import shutil
from pathlib import Path

import numpy as np
import pytest
import small

from edgestill.flows.registry import drift, promotion
from edgestill.flows.registry.book import FOLDER, Decision, held_book, one_night, read_book
from edgestill.flows.registry.compare import _in_recall
from edgestill.flows.registry.retention import Retention, prune
from edgestill.flows.registry.rule import TOTAL_ERROR, Compared, error_of, interval_of, interval_of_sums, judge
from edgestill.flows.runner import new_run, run_chain
from edgestill.pipeline.errors import RunDirError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training.difference import balanced_difference
from edgestill.pipeline.training.metrics import paired_difference

EVEN = Compared(
    gained=0, lost=0, n=1000, look=1, speedup=1.0, speedup_interval=(0.99, 1.01), latency_ms=1.0, max_latency_ms=None,
    min_speedup=1.05, max_loss=0.005,
)  # fmt: skip


def compared(**changes: object) -> Compared:
    return EVEN.model_copy(update=changes)


def test_the_shares_of_all_looks_to_come_add_up_to_the_total_error() -> None:
    assert sum(error_of(look) for look in range(1, 200_000)) == pytest.approx(TOTAL_ERROR, rel=1e-4)
    assert error_of(30) < error_of(2) < error_of(1) < TOTAL_ERROR


def test_the_interval_is_that_of_the_metrics_at_the_same_level() -> None:
    assert interval_of(30, 12, 400, 0.05) == pytest.approx(paired_difference(12, 30, 400), abs=1e-6)


def test_a_year_of_equal_students_is_promoted_in_at_most_one_of_twenty() -> None:
    rng, nights, years = np.random.default_rng(0), 100, 200
    wrong = 0
    for _ in range(years):
        gained, lost = rng.multinomial(1000, [0.02, 0.02, 0.96], nights).T[:2]
        wrong += any(
            interval_of(int(g), int(b), 1000, error_of(look))[0] > 0
            for look, (g, b) in enumerate(zip(gained, lost, strict=True), 1)
        )
    assert wrong / years <= TOTAL_ERROR


def test_a_student_better_by_more_than_the_interval_is_promoted_within_its_budget_alone() -> None:
    better = compared(gained=60, lost=5)
    assert judge(better).is_promoted
    assert judge(better).reason.startswith("better by more than the interval: +5.5 points")
    assert not judge(better.model_copy(update={"max_latency_ms": 0.5})).is_promoted
    assert not judge(compared(gained=12, lost=5)).is_promoted


def test_where_the_mean_recall_chooses_it_decides_by_the_interval_that_the_gate_has() -> None:
    """20 of 1,000 examples are of the rare class; the candidate is right on 12 of them alone, and loses 15 others."""
    targets = np.array([0] * 980 + [1] * 20)
    candidate, promoted = np.ones(1000, bool), np.ones(1000, bool)
    candidate[:15], promoted[-12:] = False, False
    recall = _in_recall(candidate, promoted, targets)
    found = balanced_difference(candidate, promoted, targets)
    assert recall[0] / 1000 == pytest.approx(found.value) == pytest.approx((12 / 20 - 15 / 980) / 2)
    assert interval_of_sums(*recall, 1000, 0.05) == pytest.approx(found.interval, abs=1e-6)
    assert not judge(compared(gained=12, lost=15)).is_promoted
    verdict = judge(compared(gained=12, lost=15, recall=recall))
    assert verdict.is_promoted
    assert verdict.reason.startswith("better by more than the interval: +29.2 points of mean recall [")


def test_the_same_lead_counts_at_the_first_look_and_not_at_the_hundredth() -> None:
    lead = {"gained": 24, "lost": 6}
    assert judge(compared(**lead)).is_promoted
    assert not judge(compared(**lead, look=100)).is_promoted


def test_a_faster_student_is_promoted_only_where_a_loss_is_ruled_out() -> None:
    faster = {"speedup": 1.5, "speedup_interval": (1.4, 1.6)}
    assert judge(compared(**faster)).is_promoted
    found = judge(compared(**faster, gained=10, lost=12))
    assert not found.is_promoted
    assert found.reason.startswith("faster, but a loss cannot be ruled out")
    assert not judge(compared(**faster, gained=0, lost=40)).is_promoted


def test_a_percent_of_speed_is_not_faster_however_narrow_its_interval() -> None:
    """Two sessions of one file differ by as much, reliably."""
    found = judge(compared(speedup=1.02, speedup_interval=(1.019, 1.021)))
    assert not found.is_promoted
    assert found.reason.startswith("not surely better")
    assert judge(compared(speedup=1.07, speedup_interval=(1.05, 1.09))).is_promoted


def test_two_nights_of_one_folder_do_not_overlap(tmp_path: Path) -> None:
    with one_night(tmp_path) as first, one_night(tmp_path) as second:
        assert first
        assert not second
    with one_night(tmp_path) as after:
        assert after


def test_an_error_while_the_registry_is_held_leaves_it_as_it_was(tmp_path: Path) -> None:
    with held_book(tmp_path) as pages:
        pages.book = pages.book.looking("x")

    def fail() -> None:
        with held_book(tmp_path) as pages:
            pages.book = pages.book.looking("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert read_book(tmp_path).looks == {"x": 1}
    (tmp_path / FOLDER / "registry.json").write_text("{")
    with pytest.raises(RunDirError, match="is damaged"):
        read_book(tmp_path)


class Nothing(Frozen):
    pass


def made(parent: Path, name: str, size: int = 100) -> str:
    """A run of the registry, by name; the first is promoted."""
    with RunDir.create(parent, name, 0, Nothing()) as run:
        run.write("export", "student.onnx", bytes(size))
    with held_book(parent) as pages:
        kind = "kept" if pages.book.promoted else "promoted"
        pages.book = pages.book.deciding(Decision(run=run.root.name, at="", kind=kind, by="rule", reason=""))  # type: ignore[arg-type]
    return run.root.name


LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)


def test_retention_by_count_spares_the_promoted_the_linked_and_what_is_not_the_registrys(tmp_path: Path) -> None:
    names = [made(tmp_path, name) for name in ("a0", "a1", "a2", "a3", "a4")]
    with RunDir.create(tmp_path, "own", 0, Nothing()) as own:
        pass
    (tmp_path / names[4] / "report.html").write_text(f"begun from {names[1]}")
    removed = prune(tmp_path, Retention(count=1), LATER)
    assert removed == [names[2], names[3]]
    assert own.root.is_dir()
    assert not (tmp_path / names[2]).exists()
    assert read_book(tmp_path).removed == (names[2], names[3])


def test_retention_by_age_and_by_bytes(tmp_path: Path) -> None:
    names = [made(tmp_path, name, 40_000) for name in ("a0", "a1", "a2")]
    assert prune(tmp_path, Retention(days=20), LATER) == []
    assert prune(tmp_path, Retention(max_bytes=60_000), LATER) == [names[1]]
    assert prune(tmp_path, Retention(days=5), LATER) == [names[2]]
    assert (tmp_path / names[0]).is_dir()


def test_a_run_that_a_process_holds_is_not_removed(tmp_path: Path) -> None:
    names = [made(tmp_path, name) for name in ("a0", "a1", "a2")]
    with RunDir.open(tmp_path / names[1]):
        assert prune(tmp_path, Retention(count=1), LATER) == []
    assert prune(tmp_path, Retention(count=1), LATER) == [names[1]]


def test_rollback_without_an_earlier_promotion_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="nothing to go back to"):
        promotion.roll_back(tmp_path, "")


@pytest.mark.engines
def test_a_run_is_promoted_compared_and_rolled_back(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    for copy in (first, second, third):
        shutil.copytree(finished_run, copy)
    assert promotion.consider(first).reason == "the first one"
    assert promotion.consider(third).reason == "not compared: it ships the very file of the promoted first"
    assert read_book(tmp_path).looks == {}
    monkeypatch.setattr(promotion, "ships_the_same", lambda *given: False)
    found = promotion.consider(second)
    assert found.kind == "kept"
    assert found.reason.startswith("not surely better: +0.0 points")
    assert promotion.consider(second) == found
    book = read_book(tmp_path)
    assert (book.current, list(book.looks.values())) == ("first", [1])
    promotion.promote(second, "by hand")
    assert read_book(tmp_path).current == "second"
    assert promotion.roll_back(tmp_path, "it was not").run == "first"
    assert read_book(tmp_path).current == "first"


@pytest.mark.engines
def test_drift_is_measured_on_other_test_examples_alone(small_run: Path, tmp_path: Path) -> None:
    assert drift.measure(small_run, small_run) is None
    longer = "teacher.training.epochs=15", "distill.training.epochs=25", "tune.enabled=false", "search.shortlist=0"
    with new_run(small.config(small.data(tmp_path / "promoted.npz"), *longer), tmp_path) as promoted:
        run_chain(promoted)
    other = small.data(tmp_path / "noise.npz", seed=5)
    whole = np.load(other)
    noise = np.random.default_rng(0).integers(0, 256, whole["x_test"].shape, dtype=np.uint8)
    np.savez(other, **{**whole, "x_test": noise})
    with new_run(small.config(other, "tune.enabled=false", "search.shortlist=0"), tmp_path) as run:
        run_chain(run)
    found = drift.measure(run.root, promoted.root)
    assert found is not None
    assert found.n_after == len(noise)
    assert found.before > 0.6 > found.after
