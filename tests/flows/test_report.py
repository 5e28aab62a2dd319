"""The report: one offline page that says what happened, and says it too when the student is no gain."""

import base64
import io
import itertools
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edgestill.distill.importance import importances
from edgestill.distill.methods.base import Exhibit, ExhibitItem
from edgestill.distill.result import DistillResult, TrialRecord, TuneResult
from edgestill.distill.tunable import TuningRange
from edgestill.export.result import (
    ConvertedModel,
    ConvertResult,
    ExportedModel,
    Latency,
    Parity,
    ProfileResult,
    Ratio,
    Verdict,
)
from edgestill.export.tested.result import (
    Disagreement,
    Disagreements,
    Examined,
    Opinion,
    Reliability,
    Robustness,
    ShiftedAccuracy,
)
from edgestill.flows.chain import collected, sentence
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.report.data import ReportData
from edgestill.flows.report.drawing.canvas import COLOURS
from edgestill.flows.report.drawing.scatter import pareto_front, search_scatter, selection_values
from edgestill.flows.report.drawing.stacking import stackable
from edgestill.flows.report.write import render_report
from edgestill.flows.stages.results import DataResult, RankCheckResult, ReportResult
from edgestill.flows.wording.verdicts import lead_words
from edgestill.flows.wording.words import accuracy_claim, size_claim, speed_claim
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.runs.manifest import ConfigChange, Manifest, Origin, StageRecord
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.result import TeacherResult
from edgestill.pipeline.training.confusion import Confusion
from edgestill.pipeline.training.metrics import Metrics, wilson
from edgestill.pipeline.training.state import EpochRecord
from edgestill.search.budget import Budget
from edgestill.search.rank_correlation import Comparison, RankedStudent, ScorerRank
from edgestill.search.result import Candidate, Failure, SearchResult
from edgestill.search.tournament import Entrant, Lead, Rung, TournamentResult

SCRIPT = "<script>alert(1)</script>"


def metrics(accuracy: float, n: int = 450) -> Metrics:
    return Metrics(accuracy=accuracy, cross_entropy=0.1, n=n)


def curve(terms: tuple[str, ...]) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(
            epoch=epoch,
            learning_rate=0.05,
            loss=len(terms) / (epoch + 1),
            terms=dict.fromkeys(terms, 1 / (epoch + 1)),
            validation_accuracy=1 - 0.9 / (epoch + 1) ** 2,
            validation_cross_entropy=0.2,
            seconds=0.1,
        )
        for epoch in range(8)
    )


def candidate(architecture: str, params: int, scorer: str, score: float) -> Candidate:
    cost = Cost(params=params, flops=20 * params)
    return Candidate(architecture=architecture, cost=cost, scores={scorer: score}, std={scorer: abs(score) / 10})


def search(**changes: Any) -> SearchResult:
    candidates = tuple(candidate(f"1-{i}", 40_000 + 2_000 * i, "diswot", -1 / (i + 1)) for i in range(20))
    winner = candidates[-1]
    values: dict[str, Any] = {
        "space": "resnet",
        "space_size": 144,
        "scorer": "diswot",
        "combine": "sum",
        "budget": Budget(max_params=80_000),
        "strategy": "evolution",
        "winner": winner,
        "front": (winner,),
        "picks": {
            "params": candidate("9-9", 79_000, "params", 79_000),
            "nwot": candidate("1-3", 46_000, "nwot", 506.0),
        },
        "evaluated": 20,
        "exhaustive": False,
        "failures": (),
        "candidates": candidates,
        "notes": (),
    }
    return SearchResult(**values | changes)


def entrant(name: str, rank: int | None, *accuracies: float, failure: str | None = None) -> Entrant:
    found = candidate(name, 50_000, "diswot", -0.1)
    return Entrant(
        candidate=found, rank=rank, most_params=rank is None, accuracies=accuracies, seconds=2.0, failure=failure
    )


def played(entrants: tuple[Entrant, ...] | None = None, winner: str = "1-19", **changes: Any) -> TournamentResult:
    """Two rungs, of three students and of one; the search's winner is 1-19."""
    entrants = entrants or (entrant("1-19", 1, 0.9, 0.95), entrant("1-18", 2, 0.88, 0.85), entrant("9-9", None, 0.7))
    values: dict[str, Any] = {
        "enabled": True,
        "winner": next(e.candidate for e in entrants if e.candidate.architecture == winner),
        "search_winner": search().winner,
        "entrants": entrants,
        "rungs": (Rung(epochs=3, entrants=3), Rung(epochs=6, entrants=2)),
        "epochs": 21,
        "seconds": 6.0,
        "validation_images": 400,
        "train_images": 1000,
    }
    return TournamentResult(**values | changes)


def ranked(lead: tuple[float, float] = (-0.5, 0.3), unscored: int = 0) -> RankCheckResult:
    students = tuple(
        RankedStudent(
            architecture=f"s{i}", cost=Cost(params=1000 + i, flops=1), scores={}, accuracy=0.5 + i / 10, seconds=1.0
        )
        for i in range(4)
    )
    return RankCheckResult(
        configured="diswot",
        rows=(
            ScorerRank(scorer="params", tau=0.67, interval=(0.1, 1.0), n=4, unscored=0),
            ScorerRank(scorer="diswot", tau=0.33, interval=(-0.4, 0.9), n=4 - unscored, unscored=unscored),
            ScorerRank(scorer="zico", tau=None, interval=None, n=0, unscored=4),
        ),
        against_params=Comparison(difference=sum(lead) / 2, interval=lead, n=4),
        students=students,
        epochs=2,
        train_images=1000,
        validation_images=400,
        seconds=4.0,
        notes=(SCRIPT,),
    )


def tuned() -> TuneResult:
    params = {"training.learning_rate": 0.07, "kd.temperature": 3.0}
    return TuneResult(
        enabled=True,
        best=params,
        best_value=0.96,
        best_trial=1,
        trials=(
            TrialRecord(number=0, state="COMPLETE", params=params, value=0.9, epochs=9),
            TrialRecord(number=1, state="COMPLETE", params=params, value=0.96, epochs=9),
            TrialRecord(number=2, state="PRUNED", params=params, value=0.4, epochs=2),
            TrialRecord(number=3, state="FAIL", params=params, value=None, epochs=0, reason="the loss became NaN"),
        ),
    )


UNTUNED = TuneResult(enabled=False, best={}, best_value=None, best_trial=None, trials=())


def profiled(speedup: float, interval: tuple[float, float]) -> ProfileResult:
    def model(name: str, p50_ms: float) -> ExportedModel:
        latency = Latency(
            runtime="onnxruntime 1.0",
            provider="CPUExecutionProvider",
            threads=1,
            batch=1,
            summary={"n": 100, "p50_ms": p50_ms, "p90_ms": 1.5 * p50_ms},
        )
        return ExportedModel(**converted(name).model_dump(), latency=latency)

    return ProfileResult(
        teacher=model("teacher", 0.2),
        formats={"fp32": model("student", 0.2 / speedup)},
        speedups={"fp32": Ratio(value=speedup, interval=interval)},
        verdicts=(Verdict(format="fp32", shipped=True, reason="what the others are measured against"),),
        default="fp32",
        cpu="a processor",
        load_before=0.5,
    )


def converted(name: str) -> ConvertedModel:
    return ConvertedModel(
        path=f"export/{name}.onnx",
        sha256="ab" * 32,
        size_bytes=300_000,
        precision="fp32",
        opset=20,
        parity=Parity(max_abs_difference=1.2e-5, top1_agreement=1.0, n=356, checked=("validation",)),
    )


def manifest() -> Manifest:
    stages = ("data", "teacher", "search", "tournament", "tune", "distill", "export", "profile")
    return Manifest(
        schema=1,
        name="small",
        created="2026-01-02T03:04:05+00:00",
        seed=7,
        config_digest="cd" * 32,
        git_commit=None,
        versions={"torch": "2.0"},
        machine={"cpu": "a processor", "cores": 2},
        stages={n: StageRecord(status="done", seconds=3.0 * (i + 1), inputs="") for i, n in enumerate(stages)},
    )


def trained_teacher() -> TeacherResult:
    return TeacherResult(
        trained_here=True,
        validation=metrics(0.985),
        cost=Cost(params=850_000, flops=7_800_000),
        best_epoch=7,
        curve=curve(("cross_entropy",)),
    )


def distilled(params: int) -> DistillResult:
    return DistillResult(
        architecture="1-19",
        methods=({"name": "kd", "temperature": 4.0},),
        learning_rate=0.05,
        weight_decay=5e-4,
        teacher_cached=False,
        validation=metrics(0.98),
        cost=Cost(params=params, flops=1_560_000),
        best_epoch=7,
        stopped_early=False,
        curve=curve(("cross_entropy", "distillation")),
    )


def report(
    *,
    student_params: int = 78_000,
    accuracies: tuple[float, float] = (0.98, 0.96),
    speedup: float = 5.0,
    interval: tuple[float, float] = (4.9, 5.2),
    labels: tuple[str, ...] = ("cat", "dog"),
    **changes: Any,
) -> ReportData:
    """A finished run in small; `changes` are results by name (`tuned`), or fields of ReportData."""
    random_numbers = random.Random(0)
    teacher, student = accuracies
    results: dict[str, Any] = {
        "data": DataResult(
            task=Task(labels=labels, input_shape=(1, 8, 8), mean=(0.3,), std=(0.3,)),
            sizes={"train": 1000, "test": 450},
            digests={"train": "11" * 32, "test": "22" * 32},
        ),
        "teacher": trained_teacher(),
        "ranked": None,
        "found": search(),
        "played": played(),
        "tuned": tuned(),
        "distilled": distilled(student_params),
        "pruned": None,
        "converted": ConvertResult(teacher=converted("teacher"), student=converted("student")),
        "fine_tuned": None,
        "profiled": profiled(speedup, interval),
        "tested": ReportResult(
            teacher=metrics(teacher),
            student=metrics(student),
            shipped=metrics(student),
            bundle="bundle",
            report="report.html",
        ),
    }
    fields: dict[str, Any] = {
        "config": RunConfig(name="small"),
        "manifest": manifest(),
        "samples_ms": {
            "teacher": [0.2 * random_numbers.uniform(0.9, 1.2) for _ in range(100)],
            "student": [0.2 / speedup * random_numbers.uniform(0.9, 1.2) for _ in range(100)],
        },
    }
    results |= {name: value for name, value in changes.items() if name in results}
    fields |= {name: value for name, value in changes.items() if name not in results}
    return ReportData(results=collected(filter(None, results.values())), **fields)


class Page(HTMLParser):
    """What the tests look at: tags with their attributes, and the text without markup."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def svgs(html: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(report())


@pytest.fixture(scope="module")
def bare_html() -> str:
    """A run with all that can be left out left out."""
    loaded = trained_teacher().model_copy(update={"trained_here": False, "best_epoch": None, "curve": ()})
    return render_report(report(teacher=loaded, tuned=UNTUNED, found=search(budget=Budget(), picks={})))


def test_a_wide_tables_cells_name_their_columns_for_a_phone(html: str) -> None:
    labels = [
        attributes["data-label"] for tag, attributes in Page(html).tags if tag == "td" and "data-label" in attributes
    ]
    assert {"teacher", "student in torch", "shipped file", "ships?", "against the teacher"} <= set(labels)
    comparison = html.partition('id="models"')[2].partition("</table>")[0]
    row = comparison.partition("Parameters</th>")[2].partition("</tr>")[0]
    assert re.findall(r'data-label="([^"]*)">([^<]*)<', row) == [
        ("teacher", "850,000"), ("student in torch", "78,000"), ("shipped file", "78,000"),
    ]  # fmt: skip


def test_a_table_of_few_columns_stays_a_table() -> None:
    few = "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
    assert stackable(few) == few
    four = few.replace("<th>b</th>", "<th>b</th><th><i></i> c &lt;</th><td></td>")
    assert '<td data-label="a">1</td><td data-label="b">2</td>' in stackable(four)
    assert stackable(four).startswith('<table class="stack"><thead>')


def test_the_page_tells_where_the_bundle_is_and_how_it_is_used() -> None:
    found = report(bundle=Path("a run/bundle"))
    text = Page(render_report(found)).text
    assert "The bundle is the folder a run/bundle" in text
    assert "python 'a run/bundle'/run.py IMAGES_OR_FOLDER" in text
    assert "edgestill predict 'a run/bundle' IMAGES_OR_FOLDER --out answers.csv" in text
    assert "edgestill verify 'a run/bundle'" in text


def test_the_students_name_is_explained_in_words() -> None:
    known = played().model_copy(
        update={"winner": played().winner.model_copy(update={"architecture": "3-2-1/16-12-64"})}
    )
    words = "3-2-1/16-12-64: a ResNet of 3, 2 and 1 blocks with 16, 12 and 64 channels"
    assert words in Page(render_report(report(played=known))).text


def test_a_setting_changed_on_the_way_is_in_the_provenance() -> None:
    change = ConfigChange(at="", before="", settings={"tune.trials": "8 -> 3"}, stages=("data", "teacher"))
    found = report(manifest=manifest().model_copy(update={"changes": (change,)}))
    assert "changed: tune.trials 8 -> 3, after data, teacher" in Page(render_report(found)).text


def test_page_needs_no_network(html: str) -> None:
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "img")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("#", "data:")), (tag, value)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_every_section_is_there(html: str) -> None:
    ids = {attributes.get("id") for _, attributes in Page(html).tags}
    assert {"figures", "chain", "models", "search", "tournament", "tuning", "learning", "latency", "provenance"} <= ids


def test_ids_are_unique_where_they_are_not_copies(html: str) -> None:
    pieces = re.findall(r'<(\w+)[^>]* id="([^"]+)"[^>]*>', html)
    by_id: dict[str, set[str]] = {}
    for tag, name in pieces:
        by_id.setdefault(name, set()).add(tag)
    assert all(len(tags) == 1 for tags in by_id.values())
    assert not any(re.match(r"(figure|axes|patch|line2d)_\d", name) for name in by_id)


def test_every_chart_is_well_formed_and_has_a_description(html: str) -> None:
    charts = svgs(html)
    assert len(charts) == 8  # scatter wide and narrow, tuning, two curves each of student and teacher, latency
    for chart in charts:
        ElementTree.fromstring(chart)
    described = [attributes for _, attributes in Page(html).tags if attributes.get("role") == "img"]
    assert len(described) == len(charts)
    assert all(attributes.get("aria-label") for attributes in described)


def test_charts_follow_the_colour_scheme(html: str) -> None:
    for chart in svgs(html):
        for light, dark in COLOURS.values():
            assert light not in chart
            assert dark not in chart
        assert set(re.findall(r"var\(--([\w-]+)\)", chart)) <= set(COLOURS)


def test_light_colours_are_told_apart_by_value() -> None:
    assert len({light for light, _ in COLOURS.values()}) == len(COLOURS)


def test_same_data_gives_the_same_page(html: str) -> None:
    assert render_report(report()) == html


def test_foreign_text_is_escaped() -> None:
    found = search(
        notes=(SCRIPT,), failures=(Failure(scorer="diswot", architecture=SCRIPT, type=SCRIPT, reason=SCRIPT),)
    )
    failed = TrialRecord(number=4, state="FAIL", params={}, value=None, epochs=0, reason=SCRIPT)
    tuning = tuned().model_copy(update={"trials": (*tuned().trials, failed)})
    html = render_report(report(labels=(SCRIPT, "dog"), found=found, tuned=tuning))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 5  # label, note, architecture and reasons


def test_architecture_is_escaped_inside_the_chart() -> None:
    odd = candidate('<b>|conv_3x3~0|+|"none"|</b>', 50_000, "diswot", -0.5)
    html = render_report(report(found=search(candidates=(odd,), winner=odd)))
    for chart in svgs(html):
        ElementTree.fromstring(chart)
    assert "<b>" not in html


def test_headline_of_a_gain_names_figures_and_n(html: str) -> None:
    text = Page(html).text
    assert "10.9× fewer parameters, 5.00× faster [4.90, 5.20], −2.0 points on 450 test examples" in text


def confused(*rows: tuple[int, ...]) -> Confusion:
    cells = [(truth, answer, count) for truth, row in enumerate(rows) for answer, count in enumerate(row) if count]
    return Confusion(num_classes=len(rows), cells=tuple(cells))


GOOD = confused((230, 10), (8, 202))
ALWAYS_CAT = confused((240, 0), (210, 0))


def page_of(shipped: Confusion, teacher: Confusion, **changes: Any) -> str:
    accuracies = (teacher.accuracy, shipped.accuracy)
    tested = report(accuracies=accuracies).tested
    confusions = {"confusion": shipped, "teacher_confusion": teacher}
    return render_report(report(tested=tested.model_copy(update=confusions), **changes))


def test_accuracy_stands_beside_the_majority_class_and_the_figures_of_each_class() -> None:
    text = Page(page_of(GOOD, GOOD)).text
    assert "±0 points on 450 test examples; accuracy 96.00%, majority class 53.33%" in text
    assert "majority class 53.33%, mean recall of the classes 96.01%" in text
    assert "cat 240 95.8% 96.6% 95.8%" in text
    assert "hardly recognised" not in text


def test_matrix_shades_each_cell_by_its_share_of_the_class() -> None:
    cells = re.findall(r'<td class="number (right|wrong)" style="--heat: (\d+%)">(\d*)</td>', page_of(GOOD, GOOD))
    assert cells == [("right", "96%", "230"), ("wrong", "4%", "10"), ("wrong", "4%", "8"), ("right", "96%", "202")]


def test_headline_is_not_proud_of_a_student_that_knows_nothing() -> None:
    html = page_of(ALWAYS_CAT, GOOD)
    text = Page(html).text
    assert "points on 450 test examples" not in text.split("Size")[0]
    assert "but it is right on 53.33%, not surely more than the majority class (53.33%)" in text
    assert "1 of 2 classes never recognised" in text
    assert "dog (hardly recognised) 210 0.0% –" in text
    assert html.count('class="card tile worse"') == 1


def test_headline_is_not_proud_of_a_student_that_beats_a_useless_teacher() -> None:
    text = Page(page_of(GOOD, ALWAYS_CAT)).text
    assert "points on 450 test examples" not in text.split("Size")[0]
    assert "but the teacher is right on 53.33%, not surely more than the majority class (53.33%)" in text


def test_many_classes_show_the_worst_and_the_most_frequent_mistakes() -> None:
    labels = tuple(f"class{k}" for k in range(30))
    rows = [tuple(10 - (k == 7) * 9 if k == j else (k == 7) * 9 * (j == 3) for j in range(30)) for k in range(30)]
    data = report().data.model_copy(
        update={"task": Task(labels=labels, input_shape=(1, 8, 8), mean=(0.3,), std=(0.3,))}
    )
    html = page_of(confused(*rows), confused(*rows), data=data)
    assert "class7 (hardly recognised) 10 10.0%" in Page(html).text
    assert "class7 class3 9 90.0%" in Page(html).text
    assert "10 more are in the bundle's bundle.json" in Page(html).text
    assert "heat" not in html.split("<body>")[1]


def test_a_run_of_an_older_version_has_no_section_on_classes(html: str) -> None:
    assert 'id="classes"' not in html


def test_larger_slower_worse_student_is_called_so() -> None:
    html = render_report(report(student_params=1_700_000, speedup=0.5, interval=(0.4, 0.625), accuracies=(0.98, 0.9)))
    text = Page(html).text
    assert "2.00× more parameters, 2.00× slower [1.60, 2.50], −8.0 points on 450 test examples" in text
    assert "The student is not smaller than its teacher." in text
    assert "not measurably faster" in text
    assert "the loss is more than the noise of 450 examples" in text
    assert html.count('class="card tile worse"') == 3


def test_gain_carries_no_caution() -> None:
    assert "Before you ship it" not in render_report(report(accuracies=(0.96, 0.98)))


@pytest.mark.parametrize(
    ("counts", "loss"),
    [((9, 0), True), ((30, 21), False), ((None, None), False)],  # by chance 2 / 512; 0.26; 18 to 9 at most, 0.12
)
def test_a_loss_is_judged_on_the_examples_that_one_alone_gets_right(counts: Any, loss: bool) -> None:
    """98 % against 96 % of 450, 9 examples apart."""
    tested = report().tested.model_copy(update=dict(zip(("lost", "gained"), counts, strict=True)))
    html = render_report(report(tested=tested))
    text = Page(html).text
    assert ("the loss is more than the noise of 450 examples" in text) == loss
    assert ("−2.0 points: 9 examples fewer right, within noise" in text) != loss
    assert html.count('class="card tile worse"') == loss


def test_a_gain_within_noise_is_no_gain() -> None:
    tested = report(accuracies=(0.96, 0.98)).tested
    for gained, better in ((14, False), (9, True)):  # 14 to 5 comes by chance in 0.064, 9 to 0 in 0.004
        found = tested.model_copy(update={"lost": gained - 9, "gained": gained})
        html = render_report(report(tested=found))
        assert ("+2.0 points: 9 examples more right, within noise" in Page(html).text) != better
        assert html.count('class="card tile even"') == 1 + (not better)  # parity's is one


def test_claims_for_both_signs() -> None:
    assert size_claim(100, 100).is_gain is None
    assert speed_claim(1.02, (0.98, 1.05)).words.endswith("no measurable difference")
    assert speed_claim(1.02, (0.98, 1.05)).is_gain is None
    assert accuracy_claim(0.9, 0.912).words == "+1.2 points"
    assert accuracy_claim(0.912, 0.9).words == "−1.2 points"
    assert accuracy_claim(0.9, 0.9) == ("±0", "points", None)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (447, 450), (450, 450)])
def test_wilson_ends_are_where_the_score_test_is_just_met(right: int, n: int) -> None:
    accuracy = right / n
    for end in wilson(accuracy, n):
        if 1e-12 < end < 1 - 1e-12:  # an end p solves (accuracy - p)^2 = z^2 p (1 - p) / n
            assert abs(accuracy - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, rel=1e-6)
        else:
            assert end == pytest.approx(accuracy)


def test_baseline_that_picks_the_winner_is_said_so() -> None:
    winner = search().winner
    same = candidate(winner.architecture, winner.cost.params, "nwot", 500.0)
    text = Page(render_report(report(found=search(picks={"nwot": same})))).text
    assert "nwot would have picked the winner too" in text
    assert "the same student" in text


def test_pick_that_the_search_did_not_meet_has_no_place(html: str) -> None:
    text = Page(html).text
    assert "not met by the winner's search" in text
    assert "what the winner's search did not score (params)" in text
    assert "17 of 20" in text  # nwot's pick 1-3 has the fourth-lowest score


def test_winner_leads_by_what_selection_compared() -> None:
    def scored(name: str, semantic: float, relation: float) -> Candidate:
        scores = {"diswot": semantic + relation, "diswot_semantic": semantic, "diswot_relation": relation}
        return Candidate(architecture=name, cost=Cost(params=1000, flops=1), scores=scores, std={})

    candidates = (scored("a", -1.0, -0.009), scored("b", -1.1, -0.001), scored("c", -3.0, -0.005))
    found = search(combine="zscore", candidates=candidates, winner=candidates[1], picks={})
    text = Page(render_report(report(found=found))).text
    assert "diswot, its metrics as z-scores" in text
    values = selection_values(found)
    assert max(values, key=values.__getitem__) == found.winner.architecture


@pytest.mark.parametrize(
    ("scorer", "combine", "is_shown"),
    [("diswot", "sum", True), ("diswot", "rank_sum", False), ("nwot", "zscore", True)],
)
def test_a_winner_shows_its_spread_where_the_search_chose_by_that_score(scorer, combine, is_shown) -> None:
    parts = ("diswot_semantic", "diswot_relation")
    scores = [{scorer: 1.0 + i, **dict.fromkeys(parts, 1.0 + i)} for i in range(3)]
    candidates = [
        Candidate(architecture=f"1-{i}", cost=Cost(params=1000 + i, flops=1), scores=values, std={})
        for i, values in enumerate(scores)
    ]

    def drawn(std: float) -> str:
        winner = candidates[2].model_copy(update={"std": {scorer: std}})
        found = search(scorer=scorer, combine=combine, candidates=(*candidates[:2], winner), winner=winner, picks={})
        return search_scatter(found, 600, 400, with_tips=False)

    assert drawn(0.0) == drawn(0.0)
    assert (drawn(0.5) != drawn(0.0)) == is_shown


def test_tuning_that_is_off_is_said_so(bare_html: str) -> None:
    assert "Tuning is off" in Page(bare_html).text
    assert "optuna-dashboard" not in bare_html


def test_failures_are_counted_by_type() -> None:
    def failed(architecture: str, type: str) -> Failure:
        return Failure(scorer="diswot", architecture=architecture, type=type, reason=f"{type} of {architecture}")

    failures = (failed("7-7", "dead"), failed("8-8", "out_of_memory"), failed("9-9", "out_of_memory"))
    found = search(failures=failures)
    text = Page(render_report(report(found=found))).text
    assert "3 scorings failed: 2 out of memory, 1 dead" in text
    assert "out_of_memory of 9-9" in text
    assert sentence(found).startswith("1-19 of 20 scored, 3 failed (2 out of memory, 1 dead);")


def test_failed_trial_shows_its_reason(html: str) -> None:
    assert "the loss became NaN" in Page(html).text


def test_loaded_teacher_has_no_curve(bare_html: str) -> None:
    assert "The teacher was not trained here" in Page(bare_html).text
    assert len(svgs(bare_html)) == 5  # the scatter twice, two curves of the student, latency


def test_search_without_a_budget_has_no_limit_line(bare_html: str) -> None:
    text = Page(bare_html).text
    assert "without a limit on size" in text
    assert "max_params" not in text


def test_what_an_earlier_version_made_is_said_with_what_was_other(html: str) -> None:
    assert "Made earlier" not in Page(html).text
    before = Origin(git_commit=None, versions={"torch": "1.9"}, machine={"cpu": "a processor", "cores": 2})
    upgraded = manifest().made_by(before).model_copy(update={"stages": {}, "earlier": ()})
    upgraded = upgraded.model_copy(update={"stages": {"data": manifest().stages["data"]}})
    upgraded = upgraded.made_by(Origin(git_commit=None, versions={"torch": "2.0"}, machine=before.machine))
    text = Page(render_report(report(manifest=upgraded))).text
    assert "Made earlier, with other versions or on another machine: data (torch 1.9)." in text


def test_many_candidates_become_one_picture() -> None:
    many = tuple(candidate(f"a{i}", 1000 + i, "diswot", math.sin(i)) for i in range(1600))
    winner = max(many, key=lambda c: c.scores["diswot"])
    html = render_report(report(found=search(candidates=many, winner=winner, picks={})))
    assert len(html) < 600_000
    assert "data:image/png" in html


def test_only_percentiles_of_the_summaries_are_shown(html: str) -> None:
    text = Page(html).text
    assert "Latency p90" in text
    assert "Latency p95" not in text


def test_no_percentage_is_formatted_twice(html: str) -> None:
    assert "%%" not in Page(html).text
    assert "None" not in Page(html).text


def test_tournament_that_changed_the_student_names_both_and_its_cost() -> None:
    rivals = (entrant("1-19", 1, 0.80, 0.90), entrant("1-18", 2, 0.85, 0.96), entrant("9-9", None, 0.7))
    lead = Lead(over="1-19", accuracy=0.06, won=30, lost=6, comparisons=1)
    html = render_report(report(played=played(rivals, winner="1-18", leads=(lead,))))
    text = Page(html).text
    assert "It changed the student from 1-19 to 1-18." in text
    assert (
        "1-18 finished 6.0 points ahead of 1-19, more than noise: of 400 validation examples it alone is right on 30, "
        "1-19 alone on 6." in text
    )
    assert "1-19, within noise" not in text
    assert "3 students for 3 epochs, then 2 students for 6 epochs, on 1,000 examples an epoch: 21 epochs, 6.0 s" in text
    assert "distilled into 1-18" in text
    rows = re.findall(
        r"<tr[^>]*>.*?</tr>", html[html.index('id="tournament"') : html.index('id="tuning"')], flags=re.DOTALL
    )
    assert [re.search(r"<code>(.*?)</code>", row)[1] for row in rows[1:]] == ["1-18", "1-19", "9-9"]  # type: ignore[index]


@pytest.mark.parametrize(("won", "said"), [(3, "within noise"), (6, "more than noise"), (0, "level with 1-18, within")])
def test_report_and_terminal_say_the_same_of_a_lead(won: int, said: str) -> None:
    """6 to 0 is 2 / 64 by chance, 3 to 0 is 2 / 8."""
    lead = Lead(over="1-18", accuracy=won / 400, won=won, lost=0, comparisons=1)
    found = played(leads=(lead, lead.model_copy(update={"over": "1-7"})))
    text = Page(render_report(report(played=found))).text
    for over in ("1-18", "1-7"):
        words = lead_words(lead.model_copy(update={"over": over}))
        assert f"1-19 finished {words}: of 400 validation examples" in text
        assert words in sentence(found)
    assert said in text


def test_failed_entrant_shows_its_reason() -> None:
    entrants = (entrant("1-19", 1, 0.9), entrant("1-18", 2, failure="TrainingError: the loss became nan"))
    text = Page(render_report(report(played=played(entrants)))).text
    assert "1-18 failed TrainingError: the loss became nan" in text


def test_tournament_that_is_off_is_said_so() -> None:
    off = TournamentResult(enabled=False, winner=search().winner, search_winner=search().winner)
    assert "No tournament was played" in Page(render_report(report(played=off))).text


@pytest.mark.parametrize(
    ("lead", "said"),
    [
        ((-0.5, 0.3), "4 students cannot tell whether diswot ranks better than params"),
        ((0.1, 0.5), "diswot ranks these 4 students better than params"),
        ((-0.9, -0.1), "diswot ranks these 4 students worse than params"),
    ],
)
def test_rank_check_says_what_its_students_can_tell(lead: tuple[float, float], said: str) -> None:
    html = render_report(report(ranked=ranked(lead)))
    text = Page(html).text
    assert said in text
    assert "their own intervals overlap" in text
    assert "4 students, 2 epochs each on 1,000 examples, one seed, accuracy on 400 validation examples" in text
    assert "<script" not in html
    assert 'id="rank-check"' in html


def test_scorer_without_a_score_is_shown_as_such() -> None:
    html = render_report(report(ranked=ranked(unscored=1)))
    cells = {
        row[0]: row[1:] for row in (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in html.splitlines()) if row
    }
    assert cells["zico"] == ["–", "–", "0", "4"]
    assert cells["diswot, configured"][2:] == ["3", "1"]


def test_run_without_a_rank_check_has_no_section_for_it(html: str) -> None:
    assert 'id="rank-check"' not in html


def shown(*items: ExhibitItem, title: str = "What it made", **measures: float) -> ReportData:
    exhibits = (Exhibit(title=title, note="Look.", items=items),)
    return report(distilled=report().distilled.model_copy(update={"exhibits": exhibits, "measures": measures}))


def test_methods_that_say_nothing_have_no_section(html: str) -> None:
    assert 'id="methods"' not in html


def test_what_the_methods_did_stands_between_curves_and_latency() -> None:
    data = shown(ExhibitItem(caption="cat; teacher: cat", text="a sentence"), **{"hard.shift_x_px": 5.94321})
    html = render_report(data)
    assert html.index('id="learning"') < html.index('id="methods"') < html.index('id="latency"')
    text = Page(html).text
    for words in ("What it made", "a sentence", "cat; teacher: cat", "Figures of hard", "shift x px", "5.94"):
        assert words in text


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_exhibited_pixels_are_inline_pictures_of_the_same_values(channels: int) -> None:
    pixels = tuple(range(0, 40 * channels, 2))  # C, 4, 5
    html = render_report(shown(ExhibitItem(caption="one", pixels=pixels, shape=(channels, 4, 5))))
    (source,) = [attributes["src"] for tag, attributes in Page(html).tags if tag == "img"]
    assert source is not None
    kind, encoded = source.split(",")
    assert kind == "data:image/png;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    values = np.array(pixels, dtype=np.uint8).reshape(channels, 4, 5)
    assert np.array_equal(picture, values.transpose(1, 2, 0) if channels == 3 else values[0])


def test_what_methods_say_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    html = render_report(shown(ExhibitItem(caption=evil, text=evil), title=evil, **{f"{evil}.{evil}": 1.0}))
    assert "<script" not in html
    assert Page(html).text.count(evil) == 5


def test_every_format_has_a_row_with_its_verdict() -> None:
    found = profiled(5.0, (4.9, 5.2))
    fp32 = found.formats["fp32"].model_copy(update={"validation": metrics(0.96)})
    int8 = fp32.model_copy(
        update={"format": "int8", "precision": "int8", "size_bytes": 81_000, "variant": "entropy",
                "tried": {"minmax": 0.95, "entropy": 0.955}, "validation": metrics(0.955)}
    )  # fmt: skip
    slow = Ratio(value=0.66, interval=(0.65, 0.67))
    both = found.model_copy(
        update={
            "formats": {"fp32": fp32, "int8": int8},
            "speedups": found.speedups | {"int8": Ratio(value=3.3, interval=(3.2, 3.4))},
            "verdicts": (
                *found.verdicts,
                Verdict(format="int8", shipped=False, reason="1.52× slower than fp32 [1.49, 1.54]", over_fp32=slow),
                Verdict(format="engine", shipped=False, reason=f"needs {SCRIPT}", skipped=True),
            ),
            "over_budget": ("median 1 ms, above max_latency_ms 0.5",),
        }
    )
    page = render_report(report(profiled=both))
    text = Page(page).text
    assert "81.0 kB 95.50% – 0.0400 ms 0.0600 ms 3.30× [3.20, 3.40]" in text
    assert "0.660× [0.650, 0.670] rejected" in text
    assert "int8 rejected: 1.52× slower than fp32 [1.49, 1.54]." in text
    assert f"engine skipped: needs {SCRIPT}" in text
    assert SCRIPT not in page
    assert "int8 was calibrated by entropy; on validation: minmax 95.00%, entropy 95.50%." in text
    assert "The fp32 file is over budget: median 1 ms, above max_latency_ms 0.5." in text


def test_of_a_file_that_rounds_the_answers_are_compared_and_not_the_logits() -> None:
    found = profiled(5.0, (4.9, 5.2))
    parity = Parity(max_abs_difference=2.9, top1_agreement=0.995, n=6008, checked=("validation",), reference="fp32")
    int8 = found.formats["fp32"].model_copy(
        update={"format": "int8", "precision": "int8", "size_bytes": 100_000, "parity": parity}
    )
    formats, speedups = found.formats | {"int8": int8}, found.speedups | {"int8": found.speedups["fp32"]}
    shipped = Verdict(format="int8", shipped=True, reason="faster", over_fp32=Ratio(value=2, interval=(1.9, 2.1)))
    changes = {"formats": formats, "speedups": speedups, "verdicts": (*found.verdicts, shipped), "default": "int8"}
    text = Page(render_report(report(profiled=found.model_copy(update=changes)))).text
    assert (
        "Parity 99.50% same answers on 6,008 inputs, int8 file against fp32 largest difference of a logit 2.9e+00"
        in text
    )
    smaller = found.teacher.size_bytes / 100_000
    assert f"{smaller:.2f}× smaller" in text


def looked_at(**changes: Any) -> Examined:
    """A close look at 60 test examples, in fixed figures."""
    bins = Reliability(counts=(0, 20, 40), hits=(0, 10, 39), confidences=(0.0, 10.5, 38.0))
    example = Disagreement(
        index=3, truth=0, teacher=Opinion(answer=0, confidence=0.8), student=Opinion(answer=1, confidence=0.6),
        text=SCRIPT,
    )  # fmt: skip
    clean = ShiftedAccuracy(shift="none", strength="", teacher=0.98, student=0.96)
    shifted = ShiftedAccuracy(shift="noise", strength="strong", teacher=0.9, student=0.6)
    fields: dict[str, Any] = {
        "teacher": bins,
        "student": bins,
        "disagreements": Disagreements(
            counts={"teacher": 3, "student": 0, "neither": 1}, shown={"teacher": (example,)}
        ),
        "robustness": Robustness(n=60, clean=clean, rows=(shifted,)),
    }
    return Examined(**(fields | changes))


def page_with(examined: Examined | None) -> Page:
    tested = ReportResult(teacher=metrics(0.98), student=metrics(0.96), shipped=metrics(0.96), examined=examined)
    return Page(render_report(report(tested=tested)))


def test_the_test_split_seen_closely_is_on_the_page() -> None:
    page = page_with(looked_at())
    for words in (
        "calibration error 0.0250", "They answer differently on 4 of 60 test examples (6.7%)",
        "The teacher is right, the shipped file is not: 3", "Both are wrong, in different ways: 1", "cat (80%)",
        "dog (60%)", "60.0% (−36.0)", "lost to noise (strong): 28.0 points more than the teacher loses",
        "confidence can be taken at its word",
    ):  # fmt: skip
        assert words in page.text, words
    assert SCRIPT in page.text  # inert: as text, not as a tag
    assert "script" not in [tag for tag, _ in page.tags]


def test_a_file_that_is_too_sure_is_said_to_be_so() -> None:
    proud = Reliability(counts=(0, 0, 60), hits=(0, 0, 40), confidences=(0.0, 0.0, 57.0))
    assert (
        "too sure of itself: it is 95.0% sure on average, and right on 66.7%"
        in page_with(looked_at(student=proud)).text
    )


def test_a_run_that_was_not_looked_at_closely_has_no_such_sections(html: str) -> None:
    ids = {attributes.get("id") for _, attributes in Page(html).tags}
    assert not {"confidence", "disagreements", "robustness"} & ids
    short = Robustness(n=0, left_out="50 examples would have taken more than 60 s")
    assert "Not measured: 50 examples would have taken" in page_with(looked_at(robustness=short)).text


def test_the_first_screen_says_what_was_asked(html: str) -> None:
    asked = "a student of the space resnet with at most 70,000 parameters, taught by resnet56 on digits"
    text = Page(render_report(report(config=load_config(None, "digits")))).text
    assert asked in text
    assert text.index("Asked:") < text.index("Use it") < text.index("The chain")
    assert "of any size" in Page(html).text


def test_tuning_shows_importances_and_slices() -> None:
    ranges = {"training.learning_rate": TuningRange(0.005, 0.5, "log"), "kd.temperature": TuningRange(1, 20, "log")}
    trials = tuple(
        TrialRecord(
            number=k, state="COMPLETE", value=0.5 + 0.04 * k, epochs=3,
            params={"training.learning_rate": 0.01 * (k + 1), "kd.temperature": 1.0 + (7 * k) % 10},
        )
        for k in range(10)
    )  # fmt: skip
    study = TuneResult(enabled=True, best=trials[-1].params, best_value=0.86, best_trial=9, trials=trials)
    shares = importances(study, ranges)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "training.learning_rate"
    assert importances(study, ranges) == shares
    assert importances(study.model_copy(update={"trials": trials[:3]}), ranges) == {}
    page = Page(render_report(report(tuned=study)))
    charts = [attributes.get("aria-label") or "" for _, attributes in page.tags]
    assert sum("trials against" in label for label in charts) == 2


def test_the_front_is_of_those_that_nobody_beats_with_as_few_parameters() -> None:
    found = search(candidates=tuple(candidate(f"1-{k}", p, "diswot", s) for k, (p, s) in enumerate(
        [(300, 3.0), (100, 1.0), (200, 0.5), (200, 2.0), (400, 2.5), (500, 4.0)]
    )))  # fmt: skip
    values = {one.architecture: one.scores["diswot"] for one in found.candidates}
    assert pareto_front(found, values) == [(100, 1.0), (200, 2.0), (300, 3.0), (500, 4.0)]


def test_headings_go_down_a_level_at_a_time_and_landmarks_are_single(html: str) -> None:
    page = Page(html)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    assert [tag for tag, _ in page.tags if tag in ("header", "main", "footer")] == ["header", "main", "footer"]
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    scrolling = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert all(attributes.get("tabindex") == "0" for attributes in scrolling)
