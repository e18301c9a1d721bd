"""modelrel.toml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrel.commands.settings import TABLE, read, variable
from modelrel.errors import Invalid
from modelrel.quantities import size


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "modelrel.toml").write_text('[release]\ndist = "file"\n[verify]\nrtol = 1\n')
    settings = read(tmp_path, {})
    assert settings.pick("release", "dist", None, "x") == "file"
    assert settings.pick("verify", "rtol", None, 0.0) == 1.0
    settings = read(tmp_path, {"MODELREL_DIST": "environment"})
    assert settings.pick("release", "dist", None, "x") == "environment"
    assert settings.pick("release", "dist", "line", "x") == "line"


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("[release]\ndits = 'x'", "the key 'dits' in [release]", "Did you mean dist?"),
        ("[dokcer]\nx = 1", "the section [dokcer]", "Did you mean docker?"),
        ("dist = 'x'", "the section [dist]", "Known: release"),
        ("[verify]\nrtol = 'much'", "[verify] rtol is 'much', not a number", "Correct"),
        ("[docker]\nrender_only = 1", "not true or false", "Correct"),
        ("[release]\ntarget = [1]", "not a list of texts", "Correct"),
        ("[release", "not valid TOML", "Correct"),
    ],
)
def test_a_wrong_file_is_told_with_the_nearest_right_word(tmp_path: Path, text: str, words: str, hint: str) -> None:
    (tmp_path / "modelrel.toml").write_text(text)
    with pytest.raises(Invalid) as caught:
        read(tmp_path, {})
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(("section", "key"), [(section, key) for section in TABLE for key in TABLE[section]])
def test_every_setting_can_be_given_by_its_environment_variable(tmp_path: Path, section: str, key: str) -> None:
    texts = {str: "x", int: "3", float: "0.5", bool: "yes", list: "a,b"}
    values = {str: "x", int: 3, float: 0.5, bool: True, list: ["a", "b"]}
    kind = TABLE[section][key]
    assert read(tmp_path, {variable(section, key): texts[kind]}).values[section, key] == values[kind]


def test_a_wrong_environment_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="MODELREL_VERIFY_ROWS is 'many'"):
        read(tmp_path, {"MODELREL_VERIFY_ROWS": "many"})


@pytest.mark.parametrize(("text", "found"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("77", 77), ("2kb", 2000)])
def test_sizes_are_read_as_people_write_them(text: str, found: int) -> None:
    assert size(text, "--memory") == found


@pytest.mark.parametrize("text", ["", "much", "4 furlongs", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not a size"):
        size(text, "--memory")
