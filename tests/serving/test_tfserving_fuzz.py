"""What is read at once is read as value by value; and no body, broken or not, is the server's fault."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrel.serving import answer, load_model
from modelrel.serving.answers import Refused
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from modelrel.serving.routing import Router
from modelrel.serving.v1 import careful
from modelrel.serving.v1.requests import Reader
from tests.serving.conftest import tensor_folder
from tests.serving.test_fuzz import mutated, torn
from tests.serving.tfserving import ROW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelrel.serving import Model
    from modelrel.serving.tensors import Array

DATATYPES = ("FP32", "FP64", "INT32", "INT64", "UINT8", "BOOL", "BYTES")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.integers(-3, 300), st.floats(width=32), st.floats(),
    st.text(max_size=3), st.sampled_from([2**24, 2**24 - 1, 2**53, -(2**53) + 1, 2**31, {"b64": "YQ"}, {"x": 1}, {}]),
)  # fmt: skip
USUAL = st.one_of(st.integers(-3, 300), st.floats(width=32, allow_nan=False), st.text(max_size=3), st.booleans())


def rows_of(values: Any) -> Any:
    row = st.lists(values, min_size=3, max_size=3)
    return st.one_of(
        st.lists(row, max_size=3),
        st.lists(st.fixed_dictionaries({"x": row}), max_size=3),
        st.lists(st.one_of(row, values, st.fixed_dictionaries({"x": row})), max_size=3),
        st.lists(st.lists(values, max_size=4), max_size=3),
    )


ROWS = st.one_of(rows_of(st.integers(0, 9)), rows_of(USUAL), rows_of(VALUES))
BODIES = st.one_of(
    st.fixed_dictionaries({"instances": ROWS}),
    st.fixed_dictionaries({"inputs": st.one_of(ROWS, st.fixed_dictionaries({"x": ROWS}), VALUES)}),
    st.fixed_dictionaries({}, optional={"instances": ROWS, "inputs": ROWS, "signature_name": VALUES}),
)
TABLE_ROW = st.fixed_dictionaries(
    {
        "d": st.floats() | st.integers(-(2**54), 2**54) | USUAL,
        "l": st.integers(-(2**64), 2**64),
        "s": st.text(),
        "b": USUAL,
    },
    optional={"f": VALUES, "g": VALUES},
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("readers")
    return {name: Reader(load_model(tensor_folder(folder / name, name))) for name in DATATYPES if name != "INT64"} | {
        "INT64": Reader(load_model(tensor_folder(folder / "long", "INT64")))
    }


def read(how: Any, *given: Any) -> tuple[str, Mapping[str, Array]] | str:
    try:
        found: tuple[str, Mapping[str, Array]] = how(*given)
    except Refused as error:
        return str(error)
    return found


def same(reader: Reader, body: bytes) -> bool:
    """Read a body both ways and compare; return whether it could be read."""
    at_once = read(reader.read, body)
    by_value = read(lambda: reader.careful(careful.parse(body)))
    if isinstance(at_once, str) or isinstance(by_value, str):
        assert at_once == by_value
        return False
    assert at_once[0] == by_value[0]
    assert at_once[1].keys() == by_value[1].keys()
    for name, array in at_once[1].items():
        assert (array.dtype, array.shape) == (by_value[1][name].dtype, by_value[1][name].shape)
        other = by_value[1][name]
        assert array.tolist() == other.tolist() if array.dtype == object else array.tobytes() == other.tobytes()
    return True


@given(BODIES)
def test_tensors_are_read_at_once_as_they_are_value_by_value(readers: dict[str, Reader], body: dict[str, Any]) -> None:
    for reader in readers.values():
        same(reader, json.dumps(body).encode())


@given(st.lists(TABLE_ROW, max_size=3), st.sampled_from(["instances", "inputs"]))
def test_columns_are_read_at_once_as_they_are_value_by_value(
    columns_model: Model, rows: list[dict[str, Any]], form: str
) -> None:
    reader = Reader(columns_model)
    names = {name for row in rows for name in row}
    inputs = {name: [row.get(name, 0) for row in rows] for name in names}
    same(reader, json.dumps({form: rows if form == "instances" else inputs}).encode())


@pytest.mark.parametrize("count", [1, 3])
def test_the_usual_requests_are_read_at_once(columns_model: Model, tensor_model: Model, count: int) -> None:
    row = {"x": [1, 0.5, -3e4]}
    table = {name: [value] * count for name, value in ROW.items()}
    for model, bodies in (
        (
            tensor_model,
            [{"instances": [row] * count}, {"instances": [row["x"]] * count}, {"inputs": [row["x"]] * count}],
        ),
        (columns_model, [{"instances": [ROW] * count}, {"inputs": table}]),
    ):
        reader = Reader(model)
        for body in bodies:
            encoded = json.dumps(body).encode()
            assert same(reader, encoded)
            assert reader._quick(reader._decoder.decode(encoded)) is not None


GOOD = {
    ":predict": [
        {"signature_name": "serving_default", "instances": [ROW, {name: [value] for name, value in ROW.items()}]},
        {"inputs": {name: [value, value] for name, value in ROW.items()}},
        {"instances": [{"x": [1, 2, 3], "file": "a", "seq": 1.10}, {"x": [1, 2, 3], "seq": {"a": [None]}}]},
        {"instances": [[1, 2, 3]]},
        {"inputs": {"x": [[1, 2, 3]], "file": ["a"]}},
    ],
    ":regress": [{"context": {"d": 1}, "examples": [ROW, {"x": [1, 2, 3]}]}],
    ":classify": [{"signature_name": "serving_default", "examples": [ROW, {"x": {"b64": "YQ=="}}]}],
}


@pytest.fixture(scope="module")
def routers(columns_model: Model, tensor_model: Model) -> list[Router]:
    return [
        Router(Models.of(model), settings=defaults(v1=form, pass_through=["file", "seq"]))
        for model in (columns_model, tensor_model)
        for form in ("tfserving", "kserve")
    ]


def assert_blameless(router: Router, method: str, path: str, body: bytes) -> None:
    reply = answer(router, method, path, {}, body)
    assert reply.status in {200, 400, 404, 501}, body
    assert len(reply.body) < 2000 or reply.status == 200, body
    if reply.status != 200:
        assert list(json.loads(reply.body)) == ["error"]


@pytest.mark.parametrize("verb", GOOD)
def test_no_change_to_a_good_body_makes_the_server_fail(routers: list[Router], verb: str) -> None:
    rng = random.Random(verb)
    for _ in range(1500):
        value = rng.choice(GOOD[verb])
        for _ in range(rng.randint(1, 3)):
            value = mutated(value, rng)
        body = json.dumps(value).encode()
        for _ in range(rng.choice([0, 0, 1, 2])):
            body = torn(body, rng)
        assert_blameless(rng.choice(routers), "POST", f"/v1/models/churn{verb}", body)


def test_no_path_below_v1_makes_the_server_fail(routers: list[Router]) -> None:
    rng = random.Random(1)
    parts = [
        "models",
        "churn",
        "versions",
        "7",
        "labels",
        "metadata",
        "",
        ":predict",
        "churn:predict",
        "7:regress",
        "\x00",
    ]
    for _ in range(4000):
        path = "/v1/" + "/".join(rng.choices([*parts, "\ud800", "é:", "MODELS", "9" * 30], k=rng.randint(0, 6)))
        assert_blameless(rng.choice(routers), rng.choice(["GET", "POST", "HEAD", "OPTIONS", "", "get"]), path, b"{}")


def test_a_refusal_repeats_little_of_what_was_sent(tensor_model: Model) -> None:
    long = "é\x01" * 50_000
    for body in ({"instances": [{long: 1}]}, {"signature_name": long}, {"instances": [[1, 2, long]]}, {"a": long}):
        reply = answer(tensor_model, "POST", "/v1/models/churn:predict", {}, json.dumps(body).encode())
        assert reply.status == 400
        assert len(reply.body) < 2000
    assert len(answer(tensor_model, "GET", f"/v1/models/{long}", {}, b"").body) < 2000
