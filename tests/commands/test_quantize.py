"""Smaller copies on the command line: made, kept by later commands, taken back, and refused with the figures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from tests.conftest import Run
from tests.models import logged

DIGITS, DIGIT = load_digits(return_X_y=True)
KNOWN = 1200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a logged model in `source`, and `rows.csv` with digits that are new to it."""
    top = tmp_path_factory.mktemp("digits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((64,), max_iter=60, random_state=0).fit(DIGITS[:KNOWN] / 16, DIGIT[:KNOWN])
    logged(model, DIGITS / 16, top)
    frame = pd.DataFrame(DIGITS[KNOWN:] / 16)
    frame["digit"] = DIGIT[KNOWN:]
    frame.to_csv(top / "rows.csv", index=False)
    return top


def test_a_smaller_copy_is_proven_shown_kept_and_taken_back(run: Run, folder: Path) -> None:
    rows = ("--data", folder / "rows.csv", "--label", "digit")
    done = run("convert", folder / "source", "--quantize", "int8", *rows, "--json")
    assert done.code == 0, done.err
    found = done.json["parity"]["loss"]
    assert done.json["converted"]["quantize"] == "int8"
    assert (found["rows"], found["budget"]["agreement"]) == (602, 0.99)
    assert found["agreement"] >= 0.99
    assert [one["name"] for one in found["metrics"]] == ["accuracy", "F1"]
    assert found["size"] < 0.3 * found["exact_size"]

    again = run("convert", folder / "source", "--quantize", "int8", *rows, "--json").json
    assert {one["outcome"] for one in again["stages"]} == {"up to date"}
    later = run("verify", folder / "source", "--json").json  # which says nothing of --quantize
    assert later["parity"]["loss"] == found

    tight = run("verify", folder / "source", "--mean-error", "0.00001", *rows, "--json")
    assert tight.code == 4
    assert "loses more than it may: probabilities is off by" in tight.json["error"]["message"]
    assert "(budget: 1e-05)" in tight.json["error"]["message"]

    back = run("convert", folder / "source", "--quantize", "none", "--json").json
    assert (back["converted"]["quantize"], back["parity"]["loss"]) == ("", None)
    assert back["parity"]["outputs"][0]["disagreements"] == 0


def test_people_see_sizes_agreement_and_metrics(run: Run, folder: Path) -> None:
    rows = ("--data", folder / "rows.csv", "--label", "digit")
    done = run("--dist", "elsewhere", "convert", folder / "source", "--quantize", "dynamic", *rows)
    assert done.code == 0, done.err
    assert "labels agree on" in done.out
    assert "accuracy 0." in done.out
    assert "bytes without" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quantize", "int4"), "there is no mode 'int4' to make a copy smaller"),
        (("--quantize", "float16", "--agreement", "99"), "--agreement is 99, not a number from 0 to 1"),
        (("--quantize", "float16", "--max-error", "-1"), "--max-error is -1, not a number of 0 or more"),
        (("--label", "digit"), "--label names a column of no file: digit"),
        (("--quantize", "int8", "--copy", "rows.csv"), "rows.csv is taken as it is"),
    ],
)
def test_what_makes_no_sense_is_said(run: Run, folder: Path, words: tuple[str, ...], said: str) -> None:
    words = tuple(str(folder / word) if word == "rows.csv" else word for word in words)
    rows = ("--data", folder / "rows.csv", "--label", "digit") if "--copy" in words else ()
    done = run("convert", folder / "source", *words, *rows, "--json")
    assert (done.code, said in done.json["error"]["message"]) == (2, True), done.out


def test_the_settings_name_the_mode_and_the_budget(run: Run, folder: Path) -> None:
    Path("modelrel.toml").write_text('[release]\nquantize = "float16"\ndist = "set"\n[verify]\nmean_error = 0.5\n')
    done = run("convert", folder / "source", "--json").json
    assert done["converted"]["quantize"] == "float16"
    assert done["parity"]["loss"]["budget"] == {"agreement": 0.999, "max_error": 0.02, "mean_error": 0.5, "drop": 0.001}
    record = json.loads(next(Path("set").rglob("ConvertedModel.json")).read_text())
    assert record["value"]["exact_size"] > record["value"]["file"]["size"]
