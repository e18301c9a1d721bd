"""Python models: unwrapped where they only wrap a model, refused where they do more, kept as they are otherwise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import PythonModel
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from modelrel.errors import Invalid, Refused
from modelrel.flavors import pyfunc
from modelrel.formats import FORMATS
from modelrel.probes import rows
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, SourceModel, VerifyOptions
from tests.conftest import Run
from tests.formats.test_contract import graph_of
from tests.models import logged

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(RANDOM.normal(size=(120, 3)), columns=["a", "b c", "d"])
KINDS = (FRAME["a"] > 0).astype(int) + (FRAME["b c"] > 0)
FOREST = RandomForestClassifier(4, random_state=0).fit(FRAME, KINDS)
LINE = LinearRegression().fit(FRAME, FRAME["a"] * 2 + FRAME["d"])


def made(predict: Any, **held: Any) -> Any:
    """Return a Python model (class Wraps) of one function `predict(self, frame)`; `held` are its attributes."""

    class Wraps(PythonModel):  # made here, so that it is pickled by value
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return predict(self, model_input)

    model = Wraps()
    model.__dict__.update(held)
    return model


def logged_as(model: Any, folder: Path, **options: Any) -> SourceModel:
    return logged(model, FRAME, folder, flavor="pyfunc", pip_requirements=["numpy"], **options)


def looked(source: SourceModel) -> Any:
    """Return a model, loaded in this process, that was asked its rows."""
    native = pyfunc.load(source.model_dir)
    assert source.signature is not None
    pyfunc.look(native, rows.fitted(FRAME, source.signature, "test"), source.signature)
    return native


DELEGATES = {
    "label": lambda self, x: self.m.predict(x),
    "probabilities": lambda self, x: self.m.predict_proba(x),
    "list": lambda self, x: self.m.predict(x).tolist(),
    "series": lambda self, x: __import__("pandas").Series(self.m.predict(x), index=x.index),
    "frame of one column": lambda self, x: __import__("pandas").DataFrame({"churn": self.m.predict(x)}),
    "frame without names": lambda self, x: __import__("pandas").DataFrame(self.m.predict_proba(x)),
}


@pytest.mark.parametrize("way", DELEGATES)
def test_a_wrapper_is_unwrapped_whatever_its_answer_comes_in(way: str, tmp_path: Path) -> None:
    native = looked(logged_as(made(DELEGATES[way], m=FOREST, other=LINE), tmp_path))
    answers = pyfunc.answers(native, tmp_path)
    assert answers.estimator == "class Wraps, a pyfunc wrapper around sklearn RandomForestClassifier"
    assert answers.outputs == ("label", "probabilities")
    assert answers.predict == ("probabilities" if way in ("probabilities", "frame without names") else "label")
    assert answers.classes == (0, 1, 2)
    flavor, inner = pyfunc.unwrapped(native, "onnx")
    assert (flavor, type(inner).__name__) == ("sklearn", "RandomForestClassifier")


MORE = {
    "a column": lambda self, x: self.m.predict_proba(x)[:, 1],
    "a threshold": lambda self, x: (self.m.predict_proba(x)[:, 1] > 0.3).astype(int),
    "names": lambda self, x: ["low" if one < 1 else "high" for one in self.m.predict(x)],
    "several columns": lambda self, x: x.assign(label=self.m.predict(x))[["a", "label"]],
    "float labels": lambda self, x: self.m.predict(x).astype(float),
}


@pytest.mark.parametrize("way", MORE)
def test_a_model_that_does_more_is_one_of_its_own(way: str, tmp_path: Path) -> None:
    native = looked(logged_as(made(MORE[way], m=FOREST), tmp_path))
    assert pyfunc.answers(native, tmp_path).estimator == "class Wraps, a Python model of its own"
    with pytest.raises(Refused, match=r"class Wraps is a Python model of its own.* become onnx: it answers") as stop:
        pyfunc.unwrapped(native, "onnx")
    assert "--to python" in stop.value.hint


def test_two_models_that_answer_alike_leave_a_choice(tmp_path: Path) -> None:
    twin = pickle.loads(pickle.dumps(FOREST))
    native = looked(logged_as(made(DELEGATES["label"], m=FOREST, twin=twin), tmp_path))
    with pytest.raises(Refused, match="its m and its twin both answer as it does"):
        pyfunc.unwrapped(native, "onnx")
    same = looked(logged_as(made(DELEGATES["label"], m=FOREST, again=FOREST), tmp_path / "same"))
    assert pyfunc.unwrapped(same, "onnx")[0] == "sklearn"


def artifact(kind: str, folder: Path) -> Path:
    """Return a forest in a file or folder of its own."""
    if kind == "mlflow":
        logged(FOREST, FRAME, folder / "inner")
        return folder / "inner/source"
    path = folder / f"forest.{kind}"
    if kind == "onnx":
        path.write_bytes(graph_of(FOREST, FRAME.to_numpy()).SerializeToString())
    else:
        path.write_bytes(pickle.dumps(FOREST))
    return path


def loads(kind: str) -> Any:
    """Return a Python model that reads the artifact `forest` each time, and holds no model."""

    class Reads(PythonModel):
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            import pickle

            path = context.artifacts["forest"]
            if kind == "mlflow":
                import mlflow

                return mlflow.pyfunc.load_model(path).predict(model_input)
            if kind == "onnx":
                import onnxruntime

                session = onnxruntime.InferenceSession(path)
                return session.run(None, {"input": model_input.to_numpy()})[0]
            import pathlib

            return pickle.loads(pathlib.Path(path).read_bytes()).predict(model_input)

    return Reads()


@pytest.mark.parametrize("kind", ["mlflow", "pkl", "onnx"])
def test_a_model_in_an_artifact_is_found(kind: str, tmp_path: Path) -> None:
    source = logged_as(loads(kind), tmp_path / "outer", artifacts={"forest": str(artifact(kind, tmp_path))})
    native = looked(source)
    assert pyfunc.unwrapped(native, "onnx")[0] == ("onnx" if kind == "onnx" else "sklearn")


def test_a_wrapper_with_an_mlflow_model_in_an_attribute_is_unwrapped(tmp_path: Path) -> None:
    class Loads(PythonModel):
        def load_context(self, context):  # type: ignore[no-untyped-def]
            import mlflow

            self.inside = mlflow.pyfunc.load_model(context.artifacts["forest"])

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return self.inside.predict(model_input)

    source = logged_as(Loads(), tmp_path / "outer", artifacts={"forest": str(artifact("mlflow", tmp_path))})
    assert pyfunc.answers(looked(source), tmp_path).estimator.startswith("class Loads, a pyfunc wrapper around sklearn")


def test_a_loader_of_a_library_alone_is_unwrapped(tmp_path: Path) -> None:
    source = logged(LINE, FRAME, tmp_path)
    text = (source.model_dir / "MLmodel").read_text()
    start, end = text.index("  sklearn:"), text.index("is_signature_from_type_hint")
    (source.model_dir / "MLmodel").write_text(text[:start] + text[end:])
    native = looked(source)
    assert (
        pyfunc.answers(native, tmp_path).estimator == "mlflow.sklearn, a pyfunc wrapper around sklearn LinearRegression"
    )


def test_a_wrapper_becomes_onnx_and_is_compared_with_its_own_predict(tmp_path: Path) -> None:
    source = logged_as(made(DELEGATES["list"], m=FOREST), tmp_path)
    report = verify(convert(source, "onnx", ConvertOptions()), VerifyOptions(rows=100, budget=2))
    assert report.converted.estimator == "class Wraps, a pyfunc wrapper around sklearn RandomForestClassifier"
    assert {parity.name: parity.disagreements for parity in report.outputs} == {"label": 0, "probabilities": 0}


def test_what_a_wrapper_does_on_rare_rows_is_caught_by_the_comparison(tmp_path: Path) -> None:
    def capped(self: Any, x: Any) -> Any:
        found = self.m.predict(x)
        found[x["a"].to_numpy() > 9] = 0  # no row of the data is there
        return found

    source = logged_as(made(capped, m=LINE), tmp_path)
    converted = convert(source, "onnx", ConvertOptions())
    with pytest.raises(Refused, match=r"class Wraps, a pyfunc wrapper around .*LinearRegression\) differs") as stop:
        verify(converted, VerifyOptions(budget=2))
    assert "--to python" in stop.value.hint


def test_gaps_that_a_wrapper_fills_are_caught_where_the_model_inside_raises(tmp_path: Path) -> None:
    line = LogisticRegression().fit(FRAME, KINDS)  # raises on gaps
    source = logged_as(made(lambda self, x: self.m.predict(x.fillna(0.0)), m=line), tmp_path)
    converted = convert(source, "onnx", ConvertOptions())
    with pytest.raises(Refused, match=r"probabilities differs on .* infinity \(a missing number\)"):
        verify(converted, VerifyOptions(budget=2))


def test_inspect_says_what_a_python_model_is(run: Run, tmp_path: Path) -> None:
    own = logged_as(made(MORE["names"], m=FOREST), tmp_path / "own").model_dir
    done = run("inspect", own, "--json")
    assert done.code == 0, done.out + done.err
    found = done.json["formats"]
    assert found["onnx"]["can"] == "no"
    assert "class Wraps is a Python model of its own" in found["onnx"]["why"]
    assert found["python"]["can"] == "yes"
    assert {"docker", "oci"} <= set(found["python"]["targets"]) - {"lambda"}
    assert found["python"]["estimator"] == "class Wraps, a Python model of its own"
    refused = run("package", own, "--target", "docker", "--json")
    assert refused.code == 4
    assert "--to python" in refused.json["error"]["hint"]


def test_a_model_in_a_file_runs_with_its_code_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "lib")  # in this process, which logs it
    (tmp_path / "lib/pricing.py").write_text("def price(frame):\n    return frame['a'] * 3\n")
    (tmp_path / "model.py").write_text(
        "import mlflow, pricing\n"
        "class Prices(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return pricing.price(model_input) + context.model_config['fee']\n"
        "mlflow.models.set_model(Prices())\n"
    )
    source = logged_as(
        str(tmp_path / "model.py"),
        tmp_path / "out",
        code_paths=[str(tmp_path / "lib/pricing.py")],
        model_config={"fee": 7.0},
    )
    converted = convert(source, "python", ConvertOptions())
    assert converted.estimator == "class Prices, a Python model of its own"
    predict = FORMATS["python"].load(converted.path)
    given = {spec.name: np.ones((2, 1)) for spec in converted.inputs}
    assert predict(given)["prediction"].tolist() == [10, 10]


@pytest.mark.parametrize(
    "change", [("python_model: python_model.pkl", "python_model: ../out.pkl"), ("code: null", "code: ../../..")]
)
def test_an_mlmodel_that_names_what_is_outside_is_invalid(change: tuple[str, str], tmp_path: Path) -> None:
    source = logged_as(made(DELEGATES["label"], m=LINE), tmp_path / "m")
    (tmp_path / "m/out.pkl").write_bytes(b"")
    text = (source.model_dir / "MLmodel").read_text()
    assert change[0] in text
    (source.model_dir / "MLmodel").write_text(text.replace(*change))
    with pytest.raises(Invalid, match="not among the model's files"):
        pyfunc.load(source.model_dir)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(lambda self, x: 1 / 0, "answers no row at hand"), (lambda self, x: "one text", "answers no row at hand")],
    ids=["raises", "no array"],
)
def test_a_model_that_answers_no_row_becomes_nothing(answer: Any, said: str, tmp_path: Path) -> None:
    source = logged_as(made(answer), tmp_path)
    with pytest.raises(Refused, match=said):
        convert(source, "python", ConvertOptions())


def test_a_copy_of_a_model_of_its_own_may_be_handed_in_and_is_proven(tmp_path: Path) -> None:
    source = logged_as(made(lambda self, x: x["a"].abs()), tmp_path / "m")
    assert source.signature is not None
    given = [
        helper.make_tensor_value_info(spec.name, TensorProto.DOUBLE, [None, 1]) for spec in source.signature.inputs
    ]
    left = helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, [None, 1])
    for name in ("Abs", "Neg"):
        graph = helper.make_graph([helper.make_node(name, ["a"], ["prediction"])], "g", given, [left])
        copy = tmp_path / f"{name}.onnx"
        opsets = [helper.make_opsetid("", 18)]
        copy.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    wrong = convert(source, "onnx", ConvertOptions(copy=tmp_path / "Neg.onnx"))
    with pytest.raises(Refused, match="prediction differs"):
        verify(wrong, VerifyOptions(rows=50, budget=1))
    right = convert(source, "onnx", ConvertOptions(copy=tmp_path / "Abs.onnx"))
    assert verify(right, VerifyOptions(rows=50, budget=1)).outputs[0].disagreements == 0
