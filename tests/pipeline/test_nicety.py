"""What a run can do without becomes a caution; errors of ours are inert and come back whole from a pickle."""

import pickle
import subprocess
from importlib import metadata

import pytest

from edgestill.pipeline.errors import BundleError, CandidateError, ConfigError, DataError
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.runs import provenance


def test_what_fails_is_a_caution_in_one_printable_sentence():
    cautions: list[str] = []
    with nicety("the card was not written", cautions):
        raise UnicodeError("bad \x1b\nbytes" + "x" * 1000)
    with nicety("the page was not written", cautions):
        raise KeyError
    with nicety("nothing was not written", cautions):
        pass
    first, second = cautions
    assert first.startswith(r"the card was not written (UnicodeError: bad \x1b")
    assert first.isprintable()
    assert len(first) < 400
    assert second == "the page was not written (KeyError)"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_passes(kind):
    with pytest.raises(kind), nicety("x", []):
        raise kind


def test_an_error_spells_out_what_it_quotes():
    error = DataError("column '\x1b[2J\x9b\u202e\n' of x" + "y" * 10_000, "two")
    first, second = str(error).split("\n")
    assert first.startswith(r"column '\x1b[2J\x9b\u202e\n' of x")
    assert first.isprintable()
    assert len(first) < 2100
    assert second == "two"


@pytest.mark.parametrize(
    "error",
    [ConfigError(["one", "two"]), BundleError(["one", "two"]), DataError("one", "two"), CandidateError("one", "dead")],
)
def test_an_error_crosses_to_another_process_as_it_is(error):
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xf6", 0, 1, "bad"), KeyError("Version"), None])
def test_a_package_with_broken_metadata_has_an_unknown_version(error, monkeypatch):
    def version(name):
        if name == "numpy":
            if error is not None:
                raise error
            return None  # what some Pythons say of a file without the line
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert provenance.installed_versions()["numpy"] == "unknown"
    assert provenance.installed_versions()["torch"] == "1"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("git"),
        PermissionError("git"),
        subprocess.TimeoutExpired("git", 10),
        subprocess.CalledProcessError(128, "git", "fatal: detected dubious ownership"),
    ],
)
def test_a_git_that_is_not_there_hangs_or_trusts_nobody_is_no_commit(error, monkeypatch):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert provenance.git_commit.__wrapped__() is None
