"""README is true: every command, option, exit code, setting and target it names exists, and the other way round."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from modelrel.commands import _app
from modelrel.commands.settings import FILE, TABLE, read, variable
from modelrel.errors import FAMILIES
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS
from modelrel.targets import TARGETS

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands() -> dict[str, set[str]]:
    """Return command -> its long options, as the command line itself knows them."""
    import typer.main

    group = typer.main.get_command(_app())
    return {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def test_every_command_is_documented_and_every_documented_one_exists() -> None:
    assert set(re.findall(r"^\| `modelrel ([\w-]+)", section("Commands"), re.MULTILINE)) == set(commands())


def test_every_option_is_documented() -> None:
    known = set().union(*commands().values()) - {"--help"}
    assert {option for option in known if f"`{option}" not in section("Commands")} == set()


def test_every_documented_option_exists() -> None:
    known = set().union(*commands().values()) | {"--help", "--version"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    assert named - known == set()


def test_the_table_of_options_says_which_command_takes_which() -> None:
    rows = re.findall(r"^\| (`--[^|]+) \| ([a-z, -]+) \|", section("Commands"), re.MULTILINE)
    assert rows
    taken = commands()
    for options, names in rows:
        for name in names.split(", "):
            assert set(re.findall(r"--[a-z0-9-]+", options)) <= taken[name], name


def test_the_exit_codes_are_the_documented_ones() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)}
    assert documented == {0, 1} | {family.exit_code for family in FAMILIES}


def test_every_setting_and_its_variable_is_documented(tmp_path: Path) -> None:
    text = section("Configuration").split("```toml\n")[1].split("```")[0]
    documented = {(name, key) for name, keys in tomllib.loads(text).items() for key in keys}
    assert documented == {(name, key) for name, keys in TABLE.items() for key in keys}
    for name, key in documented:
        assert variable(name, key) in text
    (tmp_path / FILE).write_text(text)
    assert len(read(tmp_path, {}).values) == len(documented)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_described(target: str) -> None:
    assert f"**{target}**" in section("Targets")


def test_every_flavor_that_a_format_takes_is_in_the_table() -> None:
    table = section("What can be converted").partition("| flavor |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"\w+", cell)}
    assert documented == set().union(*(form.FLAVORS for form in FORMATS.values())) == set(FLAVORS)


def test_every_make_target_it_names_exists() -> None:
    made = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) - {"the"} <= made


def test_the_environment_variables_it_names_are_read_somewhere() -> None:
    source = "".join(path.read_text() for path in (TOP / "modelrel").rglob("*.py"))
    settings = {variable(name, key) for name, keys in TABLE.items() for key in keys}
    named = set(re.findall(r"\b(?:MODELREL|MLFLOW|GITHUB|GITLAB)_[A-Z_]+", README))
    assert {name for name in named - settings if name not in source} == set()


def test_the_help_of_the_program_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "modelrel", "--help"], capture_output=True, text=True, check=True)
    assert "promote" in done.stdout
