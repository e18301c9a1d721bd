"""Identifiers of programming languages, made of names that may be anything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrel.targets.identifiers import LONGEST, Style, identifiers

STYLES: tuple[Style, ...] = ("camel", "pascal", "snake")
KEYWORDS = {"class", "val", "when", "value", "in"}


@pytest.mark.parametrize("style", STYLES)
@given(names=st.lists(st.text(max_size=80) | st.sampled_from(["class", "a b", "aB", "a_b", "a2", "a", "A", "größe"])))
def test_they_are_valid_and_differ_whatever_the_names_are(style: Style, names: list[str]) -> None:
    found = identifiers(names, style, KEYWORDS)
    assert list(found) == list(dict.fromkeys(names))
    assert len({word.lower() for word in found.values()}) == len(found)
    for word in found.values():
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word)
        assert word.lower() not in KEYWORDS
        assert len(word) <= LONGEST + 6
        assert word == word.lower() or style != "snake"
    assert identifiers(names, style, KEYWORDS) == found


@pytest.mark.parametrize(
    ("name", "camel", "pascal", "snake"),
    [
        ("petal length (cm)", "petalLengthCm", "PetalLengthCm", "petal_length_cm"),
        ("MedInc", "medInc", "MedInc", "medinc"),
        ("ID", "id", "ID", "id"),
        ("größe", "grosse", "Grosse", "grosse"),
        ("serving_default:0", "servingDefault0", "ServingDefault0", "serving_default_0"),
        ("1.2", "value1_2", "Value1_2", "value_1_2"),
        ('x"y', "xY", "XY", "x_y"),
        ("🙂", "value", "Value", "value"),
        ("", "value", "Value", "value"),
    ],
)
def test_a_name_reads_as_people_would_write_it(name: str, camel: str, pascal: str, snake: str) -> None:
    assert [identifiers([name], style)[name] for style in STYLES] == [camel, pascal, snake]


def test_a_name_that_is_one_already_keeps_it_wherever_it_stands() -> None:
    assert identifiers(["a b", "aB"], "camel") == {"a b": "aB2", "aB": "aB"}
    assert identifiers(["aB", "a b"], "camel") == {"aB": "aB", "a b": "aB2"}


def test_a_number_does_not_make_another_name_of_it() -> None:
    found = identifiers(["x1", "x 1", "x12"], "camel")
    assert found == {"x1": "x1", "x 1": "x1_2", "x12": "x12"}


def test_a_keyword_is_never_given() -> None:
    assert identifiers(["class", "Class"], "camel", {"class"}) == {"class": "class2", "Class": "class3"}
