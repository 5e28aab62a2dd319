"""The report's chart of the trade between accuracy, latency and size."""

import itertools
import random
from types import SimpleNamespace

import pytest
from markupsafe import Markup

from edgestill.flows.report.drawing.canvas import COLOURS
from edgestill.flows.report.drawing.trade import TradePoint, dominating, trade_chart
from edgestill.flows.report.trade import trade, trade_points

POINTS = [
    TradePoint("pi5", "fp32", 0.95, 2.0, 300_000),
    TradePoint("pi5", "fp16", 0.95, 2.2, 310_000),  # fp32 is better in two
    TradePoint("pi5", "int8", 0.94, 0.5, 90_000),
    TradePoint("old", "fp32", 0.95, 9.0, 300_000),
]


def test_dominated_formats_are_those_of_a_brute_force():
    rng = random.Random(0)
    points = [TradePoint(rng.choice("ab"), str(i), rng.choice((0.8, 0.9)), rng.choice((1, 2, 3)), rng.choice((1, 2)))
              for i in range(40)]  # fmt: skip

    def beats(a, b):
        gains = (a.accuracy - b.accuracy, b.p50_ms - a.p50_ms, b.size_bytes - a.size_bytes)
        return a.target == b.target and min(gains) >= 0 and max(gains) > 0

    beaten = {b.format for a, b in itertools.permutations(points, 2) if beats(a, b)}
    assert {point.format for point in points if dominating(point, points)} == beaten
    assert 0 < len(beaten) < 40
    assert all(beats(dominating(p, points), p) for p in points if p.format in beaten)


def test_every_point_has_a_tip_and_the_dominated_one_is_grey():
    drawn = trade_chart(POINTS, 400, 300)
    assert isinstance(drawn, Markup)
    assert drawn.count("<title>") == len(POINTS)
    assert "fp16 on pi5: 95.00%, 2.20 ms, 310 kB; fp32 is no worse in any of these" in drawn
    assert "int8 on pi5: 94.00%, 0.500 ms, 90.0 kB</title>" in drawn
    assert "var(--point)" in drawn
    assert "var(--point)" not in trade_chart([POINTS[0], POINTS[2], POINTS[3]], 400, 300)
    assert not any(light in drawn for light, _ in COLOURS.values())


def metrics(accuracy):
    return SimpleNamespace(accuracy=accuracy)


def data(targets=(), tested=True):
    """A run's report data, as far as the section reads them."""
    latency = {"fp32": SimpleNamespace(p50_ms=2.0), "int8": SimpleNamespace(p50_ms=0.5)}
    sizes = {"fp32": 300_000, "int8": 90_000}
    formats = {
        name: SimpleNamespace(latency=latency[name], size_bytes=sizes[name], validation=metrics(0.9)) for name in sizes
    }
    on_targets = [SimpleNamespace(name=name, latencies=latency) for name in targets]
    return SimpleNamespace(
        profiled=SimpleNamespace(formats=formats, targets=on_targets),
        tested=SimpleNamespace(formats={"fp32": metrics(0.95), "int8": metrics(0.94)} if tested else {}),
    )


@pytest.mark.parametrize(("tested", "split", "accuracy"), [(True, "test", 0.95), (False, "validation", 0.9)])
def test_accuracies_are_all_of_one_split(tested, split, accuracy):
    points, of = trade_points(data(("pi5", "old"), tested))
    assert of == split
    assert [(p.target, p.format) for p in points] == [
        (target, name) for target in ("pi5", "old") for name in ("fp32", "int8")
    ]
    assert points[0].accuracy == accuracy


def test_targets_have_a_legend_and_one_format_has_no_section():
    assert [name for name, _ in trade(data(("pi5", "old")))["targets"]] == ["pi5", "old"]
    alone = data()
    assert trade(alone)["targets"] == []
    del alone.profiled.formats["int8"]
    assert trade(alone) is None
