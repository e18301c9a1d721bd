"""Diff: what is another one is told with its figures, what breaks callers is named, and both answer the same rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import records
from modelrel.steps import answers
from modelrel.steps.answers import Answers
from modelrel.steps.diff import Diff, Line, better, diff
from modelrel.steps.facts import Known
from modelrel.values import Dataset, Signature, TensorSpec
from tests.steps.told import known, packaged
from tests.targets import tiny

UNASKED = Answers(why="not asked", sources={})


def compared(a: Known, b: Known) -> dict[str, Line]:
    return {f"{part.name} {line.what}": line for part in diff(a, b, UNASKED).parts for line in part.lines}


def part(found: Diff, name: str) -> str:
    return next(one.unknown for one in found.parts if one.name == name)


@pytest.fixture
def one(tmp_path: Path) -> Known:
    return known(tmp_path / "one", "7")


def other(one: Known, **changes: object) -> Known:
    return replace(one, source=replace(one.source, version="8", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("accuracy", "higher"), ("val_auc", "higher"), ("f1_score", "higher"), ("test_f1", "higher"), ("r2", "higher"),
        ("precision_at_10", "higher"), ("training_roc_auc", "higher"), ("ndcg@10", "higher"),
        ("loss", "lower"), ("val_loss", "lower"), ("log_loss", "lower"), ("rmse", "lower"), ("test-mae", "lower"),
        ("mean_squared_error", "lower"), ("wer", "lower"), ("p99_latency", "lower"),
        ("depth", ""), ("glossary", ""), ("mapper", ""), ("epochs", ""),
    ],
)  # fmt: skip
def test_a_metric_s_name_tells_which_way_is_better_or_nothing_does(name: str, way: str) -> None:
    assert better(name) == way


def test_metrics_are_told_with_their_change_and_whether_that_is_better(one: Known) -> None:
    found = compared(one, other(one, metrics={"accuracy": 0.95, "log_loss": 0.4, "epochs": 10}))
    accuracy, loss, epochs = (found[f"metrics {name}"] for name in ("accuracy", "log_loss", "epochs"))
    assert (accuracy.before, accuracy.after, accuracy.tone) == (0.9, 0.95, "better")
    assert accuracy.delta == pytest.approx(0.05)
    assert loss.tone == "worse"
    assert (epochs.before, epochs.after, epochs.delta, epochs.tone) == (None, 10, None, "")


def test_a_policy_that_says_which_way_is_better_is_believed(one: Known) -> None:
    found = diff(one, other(one, metrics={"accuracy": 0.95}), UNASKED, {"accuracy": "lower"})
    assert [line.tone for part in found.parts for line in part.lines if line.what == "accuracy"] == ["worse"]


def test_a_metric_that_is_no_number_is_told_and_the_json_stays_json(one: Known) -> None:
    found = diff(one, other(one, metrics={"accuracy": math.nan, "log_loss": math.inf}), UNASKED)
    text = json.dumps(records.plain(found), allow_nan=False)
    assert '"nan"' in text
    assert '"inf"' in text


def test_the_same_version_differs_in_nothing(one: Known) -> None:
    found = diff(one, one, UNASKED)
    assert [line for each in found.parts for line in each.lines] == []
    assert found.breaks == ()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ((*tiny.INPUTS, TensorSpec(name="age", datatype="FP64", shape=(-1, 1))), "the input age is new and required"),
        ((*tiny.INPUTS, TensorSpec(name="age", datatype="FP64", shape=(-1, 1), required=False)), ""),
        (tiny.INPUTS[:2], "the input bill is gone"),
        ((replace(tiny.INPUTS[0], datatype="INT64"), *tiny.INPUTS[1:]), "the input plan is INT64, it was BYTES"),
        (
            (replace(tiny.INPUTS[0], shape=(-1, 2)), *tiny.INPUTS[1:]),
            "the input plan has the shape [-1, 2], it had [-1, 1]",
        ),
    ],
    ids=["a new input", "a new optional input", "an input less", "another type", "another shape"],
)
def test_what_breaks_callers_is_named(one: Known, changed: tuple[TensorSpec, ...], sentence: str) -> None:
    found = diff(one, other(one, signature=Signature(kind="columns", inputs=changed)), UNASKED)
    assert found.breaks == ((sentence,) if sentence else ())
    assert len(next(each for each in found.parts if each.name == "signature").lines) == 1


def test_an_output_that_is_gone_breaks_callers(one: Known) -> None:
    given = Signature(kind="columns", inputs=tiny.INPUTS, outputs=tiny.OUTPUTS)
    found = diff(other(one, signature=given), other(one, signature=replace(given, outputs=tiny.OUTPUTS[:1])), UNASKED)
    assert found.breaks == ("the output probabilities is gone",)


def test_a_version_without_a_signature_is_not_called_compatible(one: Known) -> None:
    assert part(diff(one, other(one, signature=None), UNASKED), "signature") == "none is known of churn/8"


def test_requirements_that_moved_came_and_went_are_told(one: Known) -> None:
    found = compared(one, other(one, requirements=("scikit_learn==1.6.1", "pandas"), python_version="3.12.1"))
    said = {name: (line.before, line.after) for name, line in found.items()}
    assert said == {
        "requirements Python": ("3.11.2", "3.12.1"),
        "requirements scikit-learn": ("1.5.0", "1.6.1"),
        "requirements numpy": ("<3,>=2", None),
        "requirements pandas": (None, "any version"),
    }


def test_data_is_compared_by_its_digest(one: Known) -> None:
    data = (Dataset(name="calls", digest="bb22", context="training"),)
    line = compared(one, other(one, datasets=data))["data calls (training)"]
    assert (line.before, line.after) == ("aa11", "bb22")


def test_tags_that_people_set_are_compared_and_those_of_tools_are_not(one: Known) -> None:
    tags = {"team": "retention", "mlflow.user": "ada", "modelrel.promoted_by": "ada"}
    assert [name for name in compared(one, other(one, tags=tags)) if name.startswith("tags")] == ["tags team"]


def test_sizes_and_times_are_compared_and_noise_is_not_called_better(tmp_path: Path) -> None:
    first = packaged(known(tmp_path / "one", "7"), p99_ms=4.0)
    near, far = (packaged(known(tmp_path / str(p99), "8"), p99_ms=p99) for p99 in (4.4, 9.0))
    assert compared(first, near)["packages docker p99"].tone == ""
    line = compared(first, far)["packages docker p99"]
    assert (line.before, line.after, line.unit, line.tone) == (4.0, 9.0, "ms", "worse")


def test_what_was_made_of_one_of_them_alone_is_said_and_not_called_gone(one: Known, tmp_path: Path) -> None:
    found = diff(packaged(one), known(tmp_path / "two", "8"), UNASKED)
    assert part(found, "packages") == "churn/8 is not packaged here"


def test_both_are_asked_the_same_rows_and_flips_come_first(tmp_path: Path) -> None:
    a, b = known(tmp_path / "one", "7"), known(tmp_path / "two", "8", shift=0.4)
    found = answers.compare(a, b)
    assert found.sources == {"golden rows of churn/8": 5, "golden rows of churn/7": 5}
    assert found.rows == 10
    assert found.differ >= found.flips > 0
    assert found.worst[0].flipped
    assert found.worst[0].before["label"] != found.worst[0].after["label"]
    assert len(found.worst) <= 5
    label, numbers = found.outputs
    assert (label.name, label.differ, numbers.name) == ("label", found.flips, "probabilities")
    assert 0 < numbers.mean <= numbers.largest < 1


def test_the_same_copy_twice_answers_alike(tmp_path: Path) -> None:
    found = answers.compare(known(tmp_path / "one", "7"), known(tmp_path / "two", "8"))
    assert (found.differ, found.flips, found.worst) == (0, 0, ())
    assert found.why == ""


def test_more_rows_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("plan,calls,bill\nfree,1,2\npro,3,4\n")
    found = answers.compare(known(tmp_path / "one"), known(tmp_path / "two", "8"), tmp_path / "rows.csv")
    assert found.sources["rows.csv"] == 2


def test_what_is_not_converted_is_said_with_the_command_that_does_it(one: Known) -> None:
    found = answers.compare(one, replace(other(one), copies=()))
    assert found.why == "no verified copy of churn/8 is at hand (run: modelrel convert churn/8)"
    assert found.rows == 0


def test_versions_that_take_other_inputs_are_not_asked(tmp_path: Path) -> None:
    a, b = known(tmp_path / "one", "7"), known(tmp_path / "two", "8")
    (copy,) = b.copies
    inputs = (replace(tiny.INPUTS[0], name="tariff"), *tiny.INPUTS[1:])
    renamed = replace(b, copies=(replace(copy, converted=replace(copy.converted, inputs=inputs)),))
    assert "churn/7 cannot be asked what churn/8 is" in answers.compare(a, renamed).why
