"""MLflow's ``params`` to its own scoring server and to this one."""

import json
import zipfile

import pytest

from modelrel.serving import load_model
from tests.serving.scoring import ours, scorer

pytest.importorskip("mlflow")

PARAMS = [
    {"name": "flag", "type": "boolean", "default": True, "shape": None},
    {"name": "count", "type": "integer", "default": 3, "shape": None},
    {"name": "size", "type": "long", "default": None, "shape": None},
    {"name": "share", "type": "float", "default": 0.5, "shape": None},
    {"name": "rate", "type": "double", "default": 0.25, "shape": None},
    {"name": "word", "type": "string", "default": "x", "shape": None},
    {"name": "when", "type": "datetime", "default": "2020-01-02T00:00:00", "shape": None},
    {"name": "rates", "type": "double", "default": [1.0, 2.0], "shape": [-1]},
    {"name": "words", "type": "string", "default": [], "shape": [-1]},
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model that answers with the params that it was given, behind MLflow's server and behind this one."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    class Echo(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import json

            return [json.dumps(params, default=lambda value: value.isoformat(), sort_keys=True)]

    schema = ParamSchema([ParamSpec.from_json_dict(**spec) for spec in PARAMS])
    signature = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("string")]), params=schema)
    folder = tmp_path_factory.mktemp("echo")
    theirs = scorer(folder / "mlflow", python_model=Echo(), signature=signature)
    model = load_model(_served(folder / "mlflow", folder / "served"))
    yield model, theirs
    model.retire()


def _served(kept, path):
    """Write the folder that is served of a Python model that MLflow has saved."""
    path.mkdir()
    with zipfile.ZipFile(path / "model.zip", "w") as content:
        content.writestr("modelrel-origin.json", json.dumps({"flavor": "pyfunc"}))
        for file in kept.rglob("*"):
            if file.is_file():
                content.write(file, f"model/{file.relative_to(kept)}")
    manifest = {
        "schema": 1,
        "name": "echo",
        "version": "1",
        "format": "python",
        "file": "model.zip",
        "kind": "columns",
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}],
        "outputs": [{"name": "said", "datatype": "BYTES", "shape": [-1]}],
        "predict": "said",
    }
    (path / "modelrel.json").write_text(json.dumps(manifest))
    return path


_VALUES = (
    None,
    True,
    False,
    0,
    5,
    -1,
    2.5,
    1e300,
    10**400,
    "",
    "x",
    "5",
    "2021-03-04",
    "2021-03-04T05:06:07",
    [],
    [1],
    {},
)
_LISTS = ([], [1, 2.5], [None], [1, "x"], ["x", "y"], [[1], [2]], [True], [{}], "xy", 5, None, ["a", None])
_SENT = {f"{spec['name']} {value!r}"[:40]: {spec["name"]: value} for spec in PARAMS for value in _VALUES + _LISTS}
_SENT |= {"none": {}, "null": None, "a list": [], "a number": 5, "text": "x", "another": {"other": 1}}
_SENT |= {"two wrong": {"count": "x", "rate": "y"}, "one right, one unknown": {"count": 4, "other": []}}


def test_a_python_model_gets_the_params_that_mlflow_gives_it(both):
    model, theirs = both
    statuses = set()
    for name, sent in _SENT.items():
        body = json.dumps({"inputs": {"x": [1.5]}, "params": sent}).encode()
        mine = ours(model, body)
        assert mine == theirs(body), name
        statuses.add(mine[0])
    assert statuses == {200, 400}


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"x\n1.5\n", "text/csv"), (b'{"inputs": {"x": [1.5]}}', "application/json")]
)
def test_params_that_nobody_sends_have_their_defaults(both, body, content_type):
    model, theirs = both
    mine = ours(model, body, **{"content-type": content_type})
    assert mine == theirs(body, **{"content-type": content_type})
    assert json.loads(mine[1]["predictions"][0])["rate"] == 0.25
