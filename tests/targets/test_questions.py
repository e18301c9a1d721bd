"""What counts as a right answer, and what is said about a wrong one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from modelrel.errors import Refused
from modelrel.targets.delivery import Response
from modelrel.targets.questions import Golden, judge_broken
from tests.targets import tiny


@cache
def golden() -> Golden:
    return Golden.of(tiny.verified(tiny.place() / "golden"))


def infer(status: int = 200, **changed: object) -> Response:
    """A right answer, with the data of some outputs changed."""
    outputs = [
        {"name": name, "shape": list(array.shape), "data": changed.get(name, array.ravel().tolist())}
        for name, array in golden().outputs.items()
    ]
    return Response(status, {}, json.dumps({"outputs": outputs}).encode())


def probabilities() -> list[float]:
    return list(golden().outputs["probabilities"].ravel().tolist())


def test_the_recorded_answer_is_right() -> None:
    assert golden().judge_infer(infer()) == 0.0


def test_a_number_within_tolerance_is_right_and_measured() -> None:
    close = probabilities()
    close[3] += 5e-6
    assert golden().judge_infer(infer(probabilities=close)) == pytest.approx(5e-6, rel=0.2)


def test_a_wrong_number_is_named_with_output_row_expected_and_got() -> None:
    wrong = probabilities()
    wrong[2 * 2 + 1] += 0.25
    expected = golden().outputs["probabilities"][2].tolist()
    with pytest.raises(Refused, match="output 'probabilities' of row 2 is") as caught:
        golden().judge_infer(infer(probabilities=wrong))
    assert str(expected) in caught.value.message
    assert str(wrong[5]) in caught.value.message


def test_a_wrong_label_is_named_with_output_row_expected_and_got() -> None:
    wrong = golden().outputs["label"].tolist()
    was, wrong[4] = wrong[4], "maybe"
    with pytest.raises(Refused, match=f"output 'label' of row 4 is 'maybe', verify recorded '{was}'"):
        golden().judge_infer(infer(label=wrong))


def test_null_for_a_number_is_wrong() -> None:
    with pytest.raises(Refused, match="of row 0 is"):
        golden().judge_infer(infer(probabilities=[None, *probabilities()[1:]]))


def test_null_is_the_right_answer_where_nan_was_recorded() -> None:
    array = golden().outputs["probabilities"].copy()
    array[0, 0] = np.nan
    recorded = replace(golden(), outputs={**golden().outputs, "probabilities": array})
    assert recorded.judge_infer(infer(probabilities=[None, *probabilities()[1:]])) == 0.0


def test_a_missing_output_is_named() -> None:
    with pytest.raises(Refused, match="lacks the output 'label'"):
        golden().judge_infer(Response(200, {}, b'{"outputs": []}'))


def test_another_shape_is_wrong() -> None:
    answer = json.loads(infer().body)
    answer["outputs"][1]["shape"] = [10]
    with pytest.raises(Refused, match=r"has the shape \[10\], recorded was \[5, 2\]"):
        golden().judge_infer(Response(200, {}, json.dumps(answer).encode()))


def test_an_error_instead_of_an_answer_is_quoted() -> None:
    with pytest.raises(Refused, match=r'answered with 500 \{"error": "oh"\}'):
        golden().judge_infer(Response(500, {}, b'{"error": "oh"}'))


def test_a_bare_nan_is_not_json() -> None:
    with pytest.raises(Refused, match="holds NaN, which is not JSON"):
        golden().judge_invocation(Response(200, {}, b'{"predictions": [NaN]}'))


def test_predictions_are_compared() -> None:
    right = golden().outputs["label"].tolist()
    assert golden().judge_invocation(Response(200, {}, json.dumps({"predictions": right}).encode())) == 0.0


def test_too_few_predictions_are_wrong() -> None:
    with pytest.raises(Refused, match="has 1 values, recorded were 5"):
        golden().judge_invocation(Response(200, {}, b'{"predictions": ["stays"]}'))


@pytest.mark.parametrize(
    "response",
    [
        Response(200, {}, b"{}"),
        Response(500, {}, b'{"error": "oh"}'),
        Response(400, {}, b"<html>"),
        Response(400, {}, b'{"detail": "oh"}'),
        Response(404, {}, b""),
    ],
)
def test_a_broken_request_must_be_answered_with_4xx_and_an_error(response: Response) -> None:
    with pytest.raises(Refused, match="a broken request was answered with"):
        judge_broken(response)


def test_how_a_broken_request_was_refused_is_kept() -> None:
    assert judge_broken(Response(404, {}, b'{"error": "no such model"}')) == "404 no such model"
