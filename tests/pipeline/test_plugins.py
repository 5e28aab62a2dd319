"""Tables take lines of other installed packages, and leave out what cannot be one with a sentence."""

import sys
from pathlib import Path

import pytest

from edgestill.distill.methods import METHODS
from edgestill.distill.methods.kd import KD
from edgestill.export.formats import FORMATS
from edgestill.pipeline import plugins
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.digits import DigitsConfig, load_digits
from edgestill.pipeline.plugins import PlugInError, Table
from edgestill.pipeline.runs.provenance import installed_versions
from edgestill.pipeline.trackers import TRACKERS
from edgestill.search.scorers import SCORERS, Scorer
from edgestill.search.spaces import SPACES
from edgestill.search.strategies import STRATEGIES

TABLES = (METHODS, SPACES, SCORERS, STRATEGIES, DATASETS, FORMATS, TRACKERS)


def of_number(name, found):
    if not isinstance(found, int):
        raise PlugInError("a number goes there")
    return found


@pytest.fixture
def install(tmp_path, monkeypatch):
    """(distribution, entry points by name, code of its module) to an installed package; found until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_left_out", {})

    def add(distribution: str, points: dict[str, str], code: str = "", folder: Path = tmp_path) -> None:
        module = distribution.replace("-", "_")
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        lines = [f"{name} = {module}{place}" for name, place in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[edgestill.scorers]", *lines, ""]))
        plugins._all_offered.cache_clear()

    yield add
    plugins._all_offered.cache_clear()
    for name in ("edgestill_one", "edgestill_two"):
        sys.modules.pop(name, None)


def table():
    return Table("scorers", of_number, {"own": 1})


def test_an_installed_packages_lines_come_behind_our_own_by_name(install):
    install("edgestill-one", {"second": ":B", "first": ":A"}, "A, B = 2, 3")
    assert dict(table()) == {"own": 1, "first": 2, "second": 3}
    assert list(table()) == ["own", "first", "second"]
    assert plugins.cautions() == ()
    assert installed_versions()["edgestill-one"] == "1.5"


def test_nothing_is_imported_before_the_table_is_used(install):
    install("edgestill-one", {"first": ":A"}, "A = 2")
    made = table()
    assert "edgestill_one" not in sys.modules
    assert len(made) == 2
    assert "edgestill_one" in sys.modules


@pytest.mark.parametrize(
    ("name", "place", "why"),
    [
        ("lacking", ":C", "it cannot be imported (AttributeError: "),
        ("elsewhere", ".nowhere:C", "it cannot be imported (ModuleNotFoundError: "),
        ("wrong", ":TEXT", "a number goes there"),
        ("own", ":A", "the name 'own' is taken"),
        ("Loud-Name", ":A", "a name has up to 40 small letters"),
        ("a_module", "", "it is no place such as package.module:Name"),
    ],
)
def test_a_line_that_cannot_be_is_named_and_left_out_and_the_rest_works(install, name, place, why):
    install("edgestill-one", {"first": ":A", name: place}, "A, TEXT = 2, 'two'")
    assert dict(table()) == {"own": 1, "first": 2}
    (caution,) = plugins.cautions()
    assert caution.startswith(f"the plug-in {name!r} (edgestill_one{place}) of edgestill-one for edgestill's scorers")
    assert f"is left out: {why}" in caution


@pytest.mark.parametrize("code", ["import nothing_of_this_name", "raise SystemExit(3)", "1 / 0", "not python"])
def test_a_module_that_fails_is_named_in_one_line(install, code):
    install("edgestill-one", {"first": ":A"}, code)
    assert dict(table()) == {"own": 1}
    (caution,) = plugins.cautions()
    assert "it cannot be imported" in caution
    assert "\n" not in caution


def test_of_two_packages_with_one_name_the_first_by_name_has_it(install):
    install("edgestill-two", {"same": ":A"}, "A = 3")
    install("edgestill-one", {"same": ":A"}, "A = 2")
    assert table()["same"] == 2
    assert "of edgestill-two" in plugins.cautions()[0]


def test_the_environment_turns_plug_ins_off(install, monkeypatch):
    install("edgestill-one", {"first": ":A"}, "A = 2")
    monkeypatch.setenv("EDGESTILL_PLUGINS", "none")
    assert dict(table()) == {"own": 1}
    assert "edgestill-one" not in installed_versions()


def test_nothing_in_the_current_folder_is_a_plug_in(install, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    install("edgestill-one", {"first": ":A"}, "A = 2", folder=here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
    assert dict(table()) == {"own": 1}
    assert "edgestill_one" not in sys.modules


def test_a_plug_in_that_reads_the_table_sees_the_lines_before_it(install, monkeypatch):
    made = table()
    monkeypatch.setattr(plugins, "of_this_test", made, raising=False)
    code = "from edgestill.pipeline import plugins\nA = 10 + len(plugins.of_this_test)"
    install("edgestill-one", {"first": ":A"}, code)
    assert made["first"] == 11


@pytest.mark.parametrize("real", TABLES, ids=lambda made: made.kind)
def test_every_table_refuses_what_is_none_of_its_lines(real):
    for found in (42, "text", object, (int, int), type("Named", (), {"name": "newcomer"})):
        with pytest.raises(PlugInError, match="goes there"):
            real.admit("newcomer", found)
    assert "newcomer" not in real


@pytest.mark.parametrize("real", TABLES, ids=lambda made: made.kind)
def test_every_table_takes_its_own_lines_once_more_and_no_other_under_their_names(real):
    names = list(real)
    for name in names:
        real.admit(name, real[name])
    assert list(real) == names


def test_a_class_under_another_name_or_with_a_wrong_configuration_is_refused():
    with pytest.raises(PlugInError, match="the class KD has the name 'kd'"):
        METHODS.admit("newcomer", KD)
    renamed = type("Renamed", (KD,), {"name": "newcomer"})
    with pytest.raises(PlugInError, match="KDConfig does not declare `name: Literal\\['newcomer'\\] = 'newcomer'`"):
        METHODS.admit("newcomer", renamed)
    with pytest.raises(PlugInError, match="DigitsConfig does not declare"):
        DATASETS.admit("newcomer", (DigitsConfig, load_digits))
    with pytest.raises(PlugInError, match="the class Halved lacks __call__"):
        SCORERS.admit("halved", type("Halved", (Scorer,), {"name": "halved"}))
