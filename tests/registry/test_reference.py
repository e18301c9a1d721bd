"""What a user may write for MODEL."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrel.errors import Invalid
from modelrel.registry.reference import folder_name, parse


@pytest.mark.parametrize(
    ("text", "kind", "name", "value"),
    [
        ("churn/7", "version", "churn", "7"),
        ("churn/007", "version", "churn", "7"),
        ("churn@candidate", "alias", "churn", "candidate"),
        ("churn", "latest", "churn", ""),
        ("churn/latest", "latest", "churn", ""),
        ("models:/churn/7", "version", "churn", "7"),
        ("models:/churn@candidate", "alias", "churn", "candidate"),
        ("models:/churn/Production", "stage", "churn", "Production"),
        ("churn/production", "stage", "churn", "Production"),
        ("models:/churn", "latest", "churn", ""),
        ("my model.v2/3", "version", "my model.v2", "3"),
        ("runs:/0a1b2c3d4e5f/model", "run", "model", "runs:/0a1b2c3d4e5f/model"),
        ("models:/m-" + "0" * 32, "logged", "m-" + "0" * 32, "m-" + "0" * 32),
    ],
)
def test_every_form_names_what_it_says(text: str, kind: str, name: str, value: str) -> None:
    found = parse(text)
    assert (found.kind, found.name, found.value) == (kind, name, value)


@pytest.mark.parametrize(
    "text", ["", " ", "a/b/c", "churn@", "@x", "churn/1@x", "runs:/", "models:/", "chu:rn", "a\nb"]
)
def test_other_texts_are_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert caught.value.hint


def test_a_name_that_is_neither_version_nor_stage_is_told_how_to_write_an_alias() -> None:
    with pytest.raises(Invalid, match="neither a version number nor a stage") as caught:
        parse("churn/champion")
    assert "churn@champion" in caught.value.hint


def test_a_folder_with_an_mlmodel_file_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "a model").mkdir()
    (tmp_path / "a model" / "MLmodel").write_text("flavors: {}")
    found = parse(str(tmp_path / "a model"))
    assert (found.kind, found.name) == ("folder", "a-model")


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_an_mlmodel_file_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "x").mkdir()
    with pytest.raises(Invalid, match="no MLmodel file" if made else "does not exist"):
        parse(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("name", "folder"),
    [("churn", "churn-7"), ("prod.churn", "prod.churn-7"), ("../x", "_x-7"), ("a b", "a_b-7"), ("..", "model-7")],
)
def test_the_release_folder_of_any_name_stays_in_dist(name: str, folder: str) -> None:
    assert folder_name(name, "7") == folder


def test_a_name_of_any_length_has_a_folder_of_its_own() -> None:
    first, second = folder_name("模" * 256, "7"), folder_name("模" * 255 + "x", "7")
    assert first != second
    assert all(len(name.encode()) <= 255 for name in (first, second))
