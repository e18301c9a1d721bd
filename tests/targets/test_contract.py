"""What every target promises, whatever it delivers; a new one is tested by being listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from modelrel import archive, extras, render, targets
from modelrel.errors import Invalid
from modelrel.steps.package import checked
from modelrel.targets import TARGETS
from modelrel.values import PackageOptions
from tests.targets import tiny

EACH = pytest.mark.parametrize("target", sorted(TARGETS))


@EACH
def test_it_has_templates_under_its_name(target: str) -> None:
    assert list(render.names(render.templates_dir() / target))


@EACH
def test_its_tools_are_installed(target: str) -> None:
    tools = TARGETS[target].TOOLS
    assert extras.versions(*tools).keys() >= set(tools) - {"modelrel"}  # a clone is not installed


@EACH
def test_its_defaults_are_filled_in(target: str) -> None:
    chosen = TARGETS[target].options(PackageOptions())
    assert chosen.python
    assert chosen.platform


@EACH
def test_filling_in_defaults_twice_changes_nothing(target: str) -> None:
    chosen = TARGETS[target].options(PackageOptions())
    assert TARGETS[target].options(chosen) == chosen


@EACH
@pytest.mark.parametrize("options", [{"platform": "linux/riscv64"}, {"platform": "amd64"}, {"python": "3"}])
def test_what_it_cannot_do_is_an_error_of_the_command(target: str, options: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        checked(target, PackageOptions(**options))


@EACH
def test_every_file_is_recorded_with_its_digest(target: str) -> None:
    package = tiny.delivered(target)
    top = package.folder / TARGETS[target].FORMATS[0] / target
    assert {file.path: file.sha256 for file in package.files} == {
        path.relative_to(package.folder).as_posix(): archive.sha256(path) for path in archive.walk(top)
    }


@EACH
def test_the_artifact_is_in_its_folder(target: str) -> None:
    package = tiny.delivered(target)
    assert Path(package.artifact).parent == Path(TARGETS[target].FORMATS[0], target)
    assert (package.folder / package.artifact).exists()


@EACH
def test_the_parts_are_weighed(target: str) -> None:
    carries = (
        {"onnxruntime", "numpy", "serving", "model"}
        if target in ("docker", "oci", "lambda", "lambda-image")
        else {"model"}
    )
    expected = {"files"} if TARGETS[target].IMAGES else carries
    assert expected <= tiny.delivered(target).parts.keys()


@EACH
def test_it_says_how_to_go_on(target: str) -> None:
    assert any(" with: " in note for note in tiny.delivered(target).notes)


def test_every_module_of_the_list_is_checked_to_be_a_target() -> None:
    # a module that is imported when it is asked for is nothing to mypy: one tuple, which it reads alone, names them all
    tree = ast.parse(Path(targets.__file__).read_text(encoding="utf-8"))
    (checked,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "CHECKED"
    )
    assert isinstance(checked, ast.Tuple)
    named = [f"{targets.__name__}.{one.id}" for one in checked.elts if isinstance(one, ast.Name)]
    assert named == [getattr(TARGETS[name], "__name__", "") for name in TARGETS]


def test_a_target_is_imported_when_it_is_asked_for() -> None:
    shown = (
        "import sys; from modelrel.targets import TARGETS; print(*sorted({'numpy', 'jinja2', 'yaml'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
