"""The same bytes to MLflow's own scoring server and to this one: the same status, and the same predictions.

MLflow is ``mlflow.pyfunc.scoring_server.init`` around a pyfunc model, in this process. For the casts, its model hands
what schema enforcement made of the request to the very ONNX graph that is served here, whose one number tells every
value it got; for the real thing, it is the scikit-learn forest that the served graph was converted from.

Where the two are meant to differ, the reason stands beside the request, in ``DIFFERENCES``.
"""

import asyncio
import json
import logging
import math
import random

import httpx
import numpy as np
import pytest

from modelrel.serving import answer, load_model

mlflow = pytest.importorskip("mlflow")

NAMES = ["d", "l", "s", "b", "f"]
ROW = [1.5, 2, "x", True, 0.25]


def split(*rows, columns=NAMES, **more):
    return {"dataframe_split": {"columns": columns, "data": list(rows)} | more}


def records(*rows):
    return {"dataframe_records": [dict(zip(NAMES, row, strict=False)) for row in rows]}


def instances(*rows):
    return {"instances": [dict(zip(NAMES, row, strict=False)) for row in rows]}


def inputs(*rows, **changes):
    return {"inputs": {name: list(values) for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)} | changes}


def rows_of_inputs(*rows):
    return {"inputs": [dict(zip(NAMES, row, strict=False)) for row in rows]}


COLUMNS = {
    "split": split(ROW),
    "split, two rows": split(ROW, [2, 3, "y", False, 1]),
    "split, columns in another order": split([True, "x", 2, 1.5, 0.25], columns=["b", "s", "l", "d", "f"]),
    "split, an extra column": split([*ROW, 9], columns=[*NAMES, "extra"]),
    "split, an extra column of lists": split([*ROW, [1, [2]]], columns=[*NAMES, "extra"]),
    "split, an index": split(ROW, index=[5]),
    "split, a null index": split(ROW, index=None),
    "split, an unknown key": split(ROW, foo=[5]),
    "split, no columns": {"dataframe_split": {"data": [ROW]}},
    "split, no data": {"dataframe_split": {"columns": NAMES}},
    "split, a column missing": split(ROW[1:], columns=NAMES[1:]),
    "split, a column name too few": split(ROW, columns=NAMES[1:]),
    "split, a column twice": split([*ROW, 1.5], columns=[*NAMES, "d"]),
    "split, a short row": split(ROW, ROW[:4]),
    "split, a short row without an integer": split(ROW, ROW[:1]),
    "split, a long row": split(ROW, [*ROW, 5]),
    "split, the optional column left out of records": {"dataframe_split": {"data": [dict(zip(NAMES, ROW, strict=True))]}},
    "split, not an object": {"dataframe_split": [ROW]},
    "split, rows of numbers": {"dataframe_split": {"columns": NAMES, "data": [1, 2]}},
    "split, a row that is null": split(ROW, None),
    "split, an integer in a double column": split([1, 2, "x", True, 1]),
    "split, a fraction in a long column": split([1.5, 2.9, "x", True, 0.25]),
    "split, a negative fraction in a long column": split([1.5, -2.9, "x", True, 0.25]),
    "split, a whole float in a long column": split([1.5, 2.0, "x", True, 0.25]),
    "split, null in a double column": split([None, 2, "x", True, 0.25]),
    "split, null in a double column beside numbers": split(ROW, [None, 2, "x", True, 0.25]),
    "split, null in a long column": split([1.5, None, "x", True, 0.25]),
    "split, null in a long column beside numbers": split(ROW, [1.5, None, "x", True, 0.25]),
    "split, null in an optional float column": split([1.5, 2, "x", True, None]),
    "split, a number in a string for a double column": split([" 1.5 ", 2, "x", True, 0.25]),
    "split, nan in a string for a double column": split(["nan", 2, "x", True, 0.25]),
    "split, a number in a string for a long column": split([1.5, "2", "x", True, 0.25]),
    "split, a fraction in a string for a long column": split([1.5, "2.5", "x", True, 0.25]),
    "split, a word in a double column": split(["abc", 2, "x", True, 0.25]),
    "split, a word in a long column": split([1.5, "abc", "x", True, 0.25]),
    "split, a boolean in a double column": split([True, 2, "x", True, 0.25]),
    "split, a boolean among doubles": split([True, 2, "x", True, 0.25], ROW),
    "split, a boolean in a long column": split([1.5, True, "x", True, 0.25]),
    "split, a number in a boolean column": split([1.5, 2, "x", 0, 0.25], [1.5, 2, "x", 3, 0.25]),
    "split, words in a boolean column": split([1.5, 2, "x", "false", 0.25], [1.5, 2, "x", "", 0.25]),
    "split, a list in a double column": split([[1.5], 2, "x", True, 0.25]),
    "split, an object in a double column": split([{"a": 1}, 2, "x", True, 0.25]),
    "split, a double beyond a float column": split([1.5, 2, "x", True, 0.1]),
    "split, an empty string": split([1.5, 2, "", True, 0.25]),
    "records": records(ROW),
    "records, two rows": records(ROW, [2, 3, "y", False, 1]),
    "records, a double missing in one": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), dict(l=2, s="x", b=False, f=1)]},
    "records, a long missing in one": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), dict(d=2, s="x", b=False, f=1)]},
    "records, an extra key": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)) | {"e": 1}]},
    "records, a number among them": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), 5]},
    "records, null among them": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), None]},
    "records, lists": {"dataframe_records": [ROW]},
    "records, an object": {"dataframe_records": {"d": [1]}},
    "records, none": {"dataframe_records": []},
    "instances": instances(ROW),
    "instances, two rows": instances(ROW, [2, 3, "y", False, 1]),
    "instances, a key missing in one": instances(ROW, ROW[:3]),
    "instances, columns": {"instances": {name: [value] for name, value in zip(NAMES, ROW, strict=True)}},
    "instances, casts": instances(["1.5", 2.7, 5, 3, "0.25"]),
    "instances, a list for a value": instances([[1.5], 2, "x", True, 0.25]),
    "instances, lists": {"instances": [ROW]},
    "instances, none": {"instances": []},
    "instances, null": {"instances": None},
    "inputs": inputs(ROW),
    "inputs, two rows": inputs(ROW, [2, 3, "y", False, 1]),
    "inputs, single values": {"inputs": dict(zip(NAMES, ROW, strict=True))},
    "inputs, a single value among lists": inputs(ROW, ROW, l=5),
    "inputs, a single value for text": inputs(ROW, ROW, s="y"),
    "inputs, different lengths": inputs(ROW, ROW, l=[1]),
    "inputs, an extra column": inputs(ROW, e=[1]),
    "inputs, an extra column of another length": inputs(ROW, e=[1, 2]),
    "inputs, a column missing": {"inputs": {"d": [1.5], "l": [2], "b": [True]}},
    "inputs, nested numbers": inputs(ROW, d=[[1.5]]),
    "inputs, null in a double column": inputs(ROW, d=[None]),
    "inputs, null in a long column": inputs(ROW, l=[None]),
    "inputs, numbers in strings": inputs(ROW, d=["1.5"], l=[" 1_0"]),
    "inputs, numbers for a string column": inputs(ROW, ROW, s=[1.5, True]),
    "inputs, null for a string column": inputs(ROW, ROW, s=["x", None]),
    "inputs, an integer beyond long": inputs(ROW, l=[2**63]),
    "inputs, a word for a boolean": inputs(ROW, b=["false"]),
    "inputs, rows": rows_of_inputs(ROW, [2, 3, "y", False, 1]),
    "inputs, rows, a double missing in one": {"inputs": [dict(zip(NAMES, ROW, strict=True)), dict(l=2, s="x", b=True, f=0)]},
    "inputs, rows, a long missing in one": {"inputs": [dict(zip(NAMES, ROW, strict=True)), dict(d=2, s="x", b=True, f=0)]},
    "inputs, lists": {"inputs": [ROW]},
    "inputs, a number": {"inputs": 5},
    "inputs, text": {"inputs": "abc"},
    "two forms": inputs(ROW) | {"instances": [1]},
    "no form": {},
    "other keys beside": inputs(ROW) | {"other": 5, "signature_name": "x", "params": None},
    "a chat key beside": inputs(ROW) | {"messages": []},
    "only a chat key": {"prompt": "hello"},
    "a list": [1],
    "a number": 5,
    "null": None,
    "nothing": b"",
    "NaN as a literal": b'{"inputs": {"d": [NaN], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "Infinity as a literal": b'{"inputs": {"d": [-Infinity], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "a number beyond double": b'{"inputs": {"d": [1e400], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "a trailing comma": b'{"inputs": {"d": [1,]}}',
    "half a body": b'{"inputs": {"d": [1',
    "not UTF-8": b'{"inputs": {"d": [1], "l": [2], "s": ["\xff"], "b": [true], "f": [0.25]}}',
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(inputs(ROW)).encode(),
    "half a surrogate pair": b'{"inputs": {"d": [1], "l": [2], "s": ["\\ud800"], "b": [true], "f": [0.25]}}',
}

DIFFERENCES = {
    "a number in a string column of a frame": (
        split([1.5, 2, 5, True, 0.25]),
        "MLflow hands the model a number, an ONNX string tensor cannot hold one",
    ),
    "null in a string column of a frame": (
        split([1.5, 2, None, True, 0.25]),
        "MLflow hands the model None, an ONNX string tensor cannot hold it",
    ),
    "null in a boolean column of a frame": (
        split([1.5, 2, "x", None, 0.25]),
        "MLflow makes it False",
    ),
    "a boolean missing in a record": (
        {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), dict(d=2, l=3, s="x", f=1)]},
        "MLflow makes it True",
    ),
    "a list in a boolean column of a frame": (
        split([1.5, 2, "x", [False], 0.25]),
        "MLflow makes it True, unless it is empty",
    ),
    "an empty list for a number": (
        instances([[], 2, "x", True, 0.25]),
        "MLflow takes it for no value at all, in some forms",
    ),
    "an integer beyond long in a frame": (
        split([1.5, 2**63, "x", True, 0.25]),
        "MLflow lets it wrap around to the smallest long",
    ),
    "a float beyond long in a frame": (
        split([1.5, 1e300, "x", True, 0.25]),
        "MLflow makes it the smallest long",
    ),
    "an index longer than the frame": (
        split(ROW, index=[5, 6]),
        "pandas repeats the only row",
    ),
    "data that is an object of columns": (
        {"dataframe_split": {"columns": NAMES, "data": {name: [value] for name, value in zip(NAMES, ROW, strict=True)}}},
        "an accident of pandas' constructor, documented nowhere",
    ),
    "params that the model does not have": (
        inputs(ROW) | {"params": {"a": 1}},
        "MLflow ignores them; the original may have used them, the copy cannot",
    ),
}


def scorer(path, **model):
    """Save a model with MLflow and return a function that sends bytes to its scoring server."""
    from mlflow.pyfunc import scoring_server

    save = mlflow.sklearn.save_model if "sk_model" in model else mlflow.pyfunc.save_model
    save(path=str(path), pip_requirements=[], **model)
    app = scoring_server.init(mlflow.pyfunc.load_model(str(path)))

    async def post(body, headers):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            return await client.post("/invocations", content=body, headers=headers)

    def score(body, **headers):
        reply = asyncio.run(post(body, {"content-type": "application/json"} | headers))
        return reply.status_code, reply.json() if reply.status_code == 200 else None

    return score


@pytest.fixture(scope="module", autouse=True)
def quiet():
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def mlflow_columns(tmp_path_factory, columns_dir):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Scores(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            from modelrel.serving import load_model

            self.model = load_model(context.artifacts["folder"])

        def predict(self, context, model_input, params=None):
            frame = model_input if "f" in model_input else model_input.assign(f=np.float32(np.nan))
            feeds = {name: frame[name].to_numpy(object if name == "s" else None).reshape(-1, 1) for name in "dlsbf"}
            return self.model.run(["score"], feeds)[0]

    kinds = {"d": "double", "l": "long", "s": "string", "b": "boolean", "f": "float"}
    schema = Schema([ColSpec(kind, name, required=name != "f") for name, kind in kinds.items()])
    path = tmp_path_factory.mktemp("mlflow") / "columns"
    return scorer(path, python_model=Scores(), artifacts={"folder": str(columns_dir)}, signature=ModelSignature(schema))


def as_bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ours(model, body, **headers):
    reply = answer(model, "POST", "/invocations", {"content-type": "application/json"} | headers, body)
    return reply.status, json.loads(reply.body) if reply.status == 200 else None


def same(left, right):
    """Compare JSON values; unlike ==, NaN is NaN and 1 is not 1.0."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


def assert_same(mine, theirs):
    assert mine[0] == theirs[0]
    if mine[0] == 200:
        assert same(mine[1]["predictions"], theirs[1]["predictions"]), (mine, theirs)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_request_to_a_model_of_columns_is_answered_as_mlflow_answers_it(columns_model, mlflow_columns, name):
    body = as_bytes(COLUMNS[name])
    assert_same(ours(columns_model, body), mlflow_columns(body))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_mlflow_takes_and_this_server_refuses_is_listed_with_its_reason(columns_model, mlflow_columns, name):
    body = as_bytes(DIFFERENCES[name][0])
    assert ours(columns_model, body)[0] == 400
    # Some of these MLflow passes on to the model, and the graph then fails on them; MLflow itself had no objection.
    assert mlflow_columns(body)[0] == 200 or "hands the model" in DIFFERENCES[name][1]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json; charset=latin1",
        "application/json; foo=1",
        "application/json;",
        "Application/JSON",
        "text/plain",
        "application/octet-stream",
    ],
)
def test_a_content_type_is_judged_as_mlflow_judges_it(columns_model, mlflow_columns, content_type):
    body = as_bytes(inputs(ROW))
    headers = {"content-type": content_type}
    assert ours(columns_model, body, **headers) == mlflow_columns(body, **headers)


VALUES = [None, True, False, 0, 1, -3, 2.5, -2.5, 1e6, "x", "", "7", "2.5", "nan", [1], {"a": 1}, float("nan")]


def random_body(random):
    """Make a frame of odd values; text columns of frames get text, for which the differences are listed above."""
    form = random.choice([split, records, instances, inputs, rows_of_inputs])
    in_frame = form in (split, records)
    plain = [value for value in VALUES if not isinstance(value, list | dict)]
    number = plain if form is rows_of_inputs else VALUES
    rows = []
    for _ in range(random.randint(1, 3)):
        row = [random.choice([1.5, random.choice(number)]), random.choice([2, random.choice(number)])]
        row.append(random.choice([value for value in plain if isinstance(value, str) or not in_frame]))
        row.append(random.choice([True, random.choice([v for v in plain if v is not None and v == v])]))
        rows.append([*row, random.choice([0.25, random.choice(number)])])
    return form(*rows)


def test_random_tables_are_answered_as_mlflow_answers_them(columns_model, mlflow_columns):
    statuses = set()
    for seed in range(1000):
        body = as_bytes(random_body(random.Random(seed)))
        mine, theirs = ours(columns_model, body), mlflow_columns(body)
        assert mine[0] == theirs[0], body
        assert_same(mine, theirs)
        statuses.add(mine[0])
    assert statuses == {200, 400}


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """A forest on the iris data, kept by MLflow with a tensor signature, and converted for this server."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    features, classes = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    trained = RandomForestClassifier(20, random_state=0).fit(features, classes)
    folder = tmp_path_factory.mktemp("forest")
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 4))]))
    theirs = scorer(folder / "mlflow", sk_model=trained, signature=signature, serialization_format="cloudpickle")
    served = folder / "served"
    served.mkdir()
    converted = to_onnx(trained, features[:1], options={"zipmap": False})
    (served / "model.onnx").write_bytes(converted.SerializeToString())
    manifest = {
        "schema": 1,
        "name": "iris",
        "version": "1",
        "format": "onnx",
        "file": "model.onnx",
        "kind": "tensor",
        "inputs": [{"name": converted.graph.input[0].name, "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
        "predict": "label",
        "classes": [0, 1, 2],
    }
    (served / "modelrel.json").write_text(json.dumps(manifest))
    return load_model(served), theirs, features


FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
TENSORS = {
    "inputs": {"inputs": FLOWERS},
    "instances": {"instances": FLOWERS},
    "integers": {"inputs": [[5, 3, 1, 0]]},
    "numbers in strings": {"inputs": [["5.1", "3.5", "1.4", "0.2"]]},
    "words": {"inputs": [["a", "3.5", "1.4", "0.2"]]},
    "null": {"inputs": [[5.1, None, 1.4, 0.2]]},
    "too few features": {"inputs": [[5.1, 3.5]]},
    "one row, not nested": {"inputs": FLOWERS[0]},
    "nested too deep": {"inputs": [FLOWERS]},
    "ragged": {"inputs": [FLOWERS[0], [1]]},
    "no rows": {"inputs": []},
    "an empty row": {"inputs": [[]]},
    "a number": {"inputs": 5},
    "null for inputs": {"inputs": None},
    "another name": {"inputs": {"other": FLOWERS}},
    "rows of objects": {"instances": [{"a": 1}]},
    "split": {"dataframe_split": {"columns": list("abcd"), "data": FLOWERS}},
    "split, no columns": {"dataframe_split": {"data": FLOWERS}},
    "split, one column of lists": {"dataframe_split": {"columns": ["a"], "data": [[row] for row in FLOWERS]}},
    "split, one column of short lists": {"dataframe_split": {"columns": ["a"], "data": [[[1, 2]]]}},
    "split, one column of ragged lists": {"dataframe_split": {"columns": ["a"], "data": [[[1, 2, 3, 4]], [[1]]]}},
    "split, one column of numbers": {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
    "split, three columns": {"dataframe_split": {"columns": list("abc"), "data": [[1, 2, 3]]}},
    "split, null": {"dataframe_split": {"columns": list("abcd"), "data": [[1, 2, 3, None]]}},
    "split, a word": {"dataframe_split": {"columns": list("abcd"), "data": [[1, 2, 3, "a"]]}},
    "split, no rows": {"dataframe_split": {"columns": list("abcd"), "data": []}},
    "records": {"dataframe_records": [dict(zip("abcd", row, strict=True)) for row in FLOWERS]},
    "records, one list": {"dataframe_records": [{"a": row} for row in FLOWERS]},
    "records, lists": {"dataframe_records": FLOWERS},
    "records, none": {"dataframe_records": []},
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_request_to_a_converted_forest_is_answered_as_mlflow_answers_the_original(forest, name):
    model, theirs, _ = forest
    body = as_bytes(TENSORS[name])
    assert_same(ours(model, body), theirs(body))


def test_a_converted_forest_predicts_what_the_original_predicts_for_every_flower(forest):
    model, theirs, features = forest
    body = as_bytes({"inputs": features.tolist()})
    assert ours(model, body) == theirs(body)
