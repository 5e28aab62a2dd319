"""YAML is read as a person means it, loses no key, and what is written reads back as it was."""

import math

import pytest
import yaml

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.runs.yaml_text import comment_in, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),  # the examples of YAML 1.2.2, chapter 10.3, and what YAML 1.1 makes of other words
    [
        ("010", 10), ("08", 8), ("-19", -19), ("+12", 12), ("0o14", 12), ("0xC", 12),
        ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0), ("1e-3", 0.001),
        (".inf", math.inf), ("-.Inf", -math.inf), ("true", True), ("FALSE", False), ("~", None), ("Null", None),
        ("", None), ("off", "off"), ("Yes", "Yes"), ("1:30", "1:30"), ("1_000", "1_000"), ("2001-02-30", "2001-02-30"),
        ("0b1", "0b1"), ("=", "="), ("'010'", "010"), ("!!int '010'", 10), ("[010, no]", [10, "no"]),
        ("{on: 010}", {"on": 10}),
    ],
)  # fmt: skip
def test_a_plain_word_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read_yaml(text, "it")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", ["c.yaml, lines 1 and 3: a stands twice"]),
        ('a: 1\n"a": 3\n', ["c.yaml, lines 1 and 2: a stands twice"]),
        ("s:\n  b: 1\n  c: 2\n  b: 3\n  b: 4\n", ["c.yaml, lines 2, 4 and 5: s.b stands 3 times"]),
        ("m:\n- {k: 1}\n- k: 1\n  k: 2\n", ["c.yaml, lines 3 and 4: m.1.k stands twice"]),
        ("{s: {b: 1, b: 2}}", ["c.yaml, line 1: s.b stands twice"]),
        ("<<: {a: 1}\n<<: {b: 1}\n", ["c.yaml, lines 1 and 2: << stands twice"]),
        ("a: &x {b: 1, b: 2}\nc: *x\na: 1\n", ["c.yaml, line 1: a.b stands", "c.yaml, lines 1 and 3: a stands"]),
    ],
)
def test_every_key_that_stands_twice_is_told_with_its_lines(text: str, problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "c.yaml")
    assert len(caught.value.problems) == len(problems)
    assert all(any(found.startswith(told) for found in caught.value.problems) for told in problems)


def test_a_merge_is_no_repetition_and_what_stands_beside_it_counts() -> None:
    assert read_yaml("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n", "it")["own"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text",
    ["a: [1", "\x07", "a: 1\n--- \nb: 2", "[1]: 2\n? [3]\n: 4", "!!timestamp 2001-02-30", "!!binary x", "!!int x",
     "!!bool maybe", "!!python/object/apply:os.getcwd []", "9" * 5000, "[" * 5000],
)  # fmt: skip
def test_what_is_no_yaml_of_ours_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^c.yaml is not YAML") as caught:
        read_yaml(text, "c.yaml")
    assert len(str(caught.value).splitlines()) == 1


WORDS = [
    "1e-3", "010", "08", "0o17", "0x1", ".5", "1.", "yes", "no", "on", "~", "", "null", "1:30", "1_000", "2001-01-01",
    "=", "<<", "a # b", "#x", "x: y", "...", "a...", "---", "a\nb", "a\n\n b\n", " lead", "trail ", "é", "😀", "\x07",
    "\x85", "\u2028", "\ufeff", "-", "[a]", "{", "'", '"', "%x", "@x", "!x", "&x", "*x", "?", "a,b", "x " * 200,
]  # fmt: skip


@pytest.mark.parametrize("in_one_line", [False, True])
def test_what_is_written_reads_back_as_it_was_by_readers_of_both_versions(in_one_line: bool) -> None:
    value = {"words": WORDS, "by word": dict.fromkeys(WORDS, "x"), "numbers": [1e-5, 1e17, 1.5, math.inf, 10**30, True]}
    text = write_yaml(value, in_one_line=in_one_line)
    assert read_yaml(text, "it") == yaml.safe_load(text) == value
    assert not in_one_line or len(text.splitlines()) == 1
    for word in WORDS:
        text = write_yaml(word, in_one_line=in_one_line)
        assert read_yaml(text, "it") == yaml.safe_load(text) == word
        assert not in_one_line or len(text.splitlines()) <= 1


def test_a_comment_behind_a_value_is_found_and_a_number_sign_in_a_word_is_none() -> None:
    assert [comment_in(text) for text in ("x #1", "#x", "[a] # b", "{a: 1} #")] == ["#1", "#x", "# b", "#"]
    assert [comment_in(text) for text in ("x#1", "'x #1'", "a", "", "a: '#'")] == [None] * 5


def test_of_a_key_that_stands_a_thousand_times_a_few_lines_are_named():
    with pytest.raises(ConfigError, match=r"lines 1, 2, 3, 4, 5, … and 1000: a stands 1000 times") as caught:
        read_yaml("\n".join(["a: 1"] * 1000), "it")
    assert len(str(caught.value)) < 200
