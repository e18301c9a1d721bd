"""What every flavor must do: load what MLflow logged, and answer as MLflow's own pyfunc does."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from modelrel.errors import Invalid, Refused
from modelrel.flavors import FLAVORS
from modelrel.probes import rows
from tests.models import Flavor, logged, wrapper

DATA, TARGET = load_iris(return_X_y=True, as_frame=True)


def trained(flavor: str, kind: str) -> Any:
    if flavor == "sklearn":
        from sklearn.linear_model import LogisticRegression, Ridge

        return (LogisticRegression(max_iter=500) if kind == "classifier" else Ridge()).fit(DATA, TARGET)
    if flavor == "xgboost":
        import xgboost

        if kind == "booster":
            return xgboost.train({}, xgboost.DMatrix(DATA, label=TARGET), 2)
        return xgboost.XGBClassifier(n_estimators=2).fit(DATA, TARGET)
    if flavor == "catboost":
        import catboost

        options = {"iterations": 2, "verbose": 0, "allow_writing_files": False}
        if kind == "classifier":
            return catboost.CatBoostClassifier(**options).fit(DATA, TARGET)
        return catboost.CatBoost(options | {"loss_function": "RMSE"}).fit(DATA, TARGET)
    if flavor == "onnx":
        from skl2onnx import to_onnx

        return to_onnx(trained("sklearn", "regressor"), DATA.to_numpy(np.float32)[:1])
    if flavor == "pyfunc":
        return wrapper(trained("sklearn", kind))
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(DATA, TARGET)
    return model.booster_ if kind == "booster" else model


CASES = [
    ("sklearn", "classifier", {"serialization_format": "cloudpickle"}),
    ("sklearn", "classifier", {"serialization_format": "pickle"}),
    ("sklearn", "classifier", {"serialization_format": "skops"}),
    ("sklearn", "regressor", {}),
    ("xgboost", "classifier", {}),
    ("xgboost", "classifier", {"model_format": "json"}),
    ("xgboost", "booster", {}),
    ("lightgbm", "classifier", {}),
    ("lightgbm", "booster", {}),
    ("catboost", "classifier", {}),
    ("catboost", "booster", {}),
    ("onnx", "regressor", {}),
    ("pyfunc", "classifier", {}),
]


@pytest.mark.parametrize(("flavor", "kind", "options"), CASES, ids=str)
def test_a_logged_model_answers_as_mlflow_does(flavor: Flavor, kind: str, options: Any, tmp_path: Path) -> None:
    import mlflow

    source = logged(trained(flavor, kind), DATA, tmp_path, flavor=flavor, **options)
    room = FLAVORS[flavor]
    native = room.load(source.model_dir)
    example = rows.example(source)
    assert example is not None
    assert source.signature is not None
    found = room.predict(native, example, source.signature)
    answers = room.answers(native, source.model_dir)
    expected = mlflow.pyfunc.load_model(str(source.model_dir)).predict(DATA[:5])
    assert tuple(found) == answers.outputs
    given = found[answers.predict]
    # CatBoost's labels of several classes come as a column.
    assert np.array_equal(given, np.asarray(expected).reshape(given.shape))


def test_the_chosen_predict_function_decides_what_predict_is(tmp_path: Path) -> None:
    source = logged(trained("sklearn", "classifier"), DATA, tmp_path, pyfunc_predict_fn="predict_proba")
    native = FLAVORS["sklearn"].load(source.model_dir)
    assert FLAVORS["sklearn"].answers(native, source.model_dir).predict == "probabilities"


def test_a_predict_function_without_an_output_is_refused(tmp_path: Path) -> None:
    source = logged(trained("sklearn", "classifier"), DATA, tmp_path, pyfunc_predict_fn="predict_log_proba")
    native = FLAVORS["sklearn"].load(source.model_dir)
    with pytest.raises(Refused, match="predict_log_proba"):
        FLAVORS["sklearn"].answers(native, source.model_dir)


@pytest.mark.parametrize("flavor", sorted(FLAVORS))
def test_a_folder_without_mlmodel_is_invalid(flavor: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="MLmodel"):
        FLAVORS[flavor].load(tmp_path)


# theirs are in test_pytorch.py and test_tensorflow.py
@pytest.mark.parametrize("flavor", sorted(FLAVORS.keys() - {"pytorch", "transformers", "tensorflow", "keras"}))
@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_file_is_invalid(flavor: Flavor, size: int, tmp_path: Path) -> None:
    source = logged(trained(flavor, "booster"), DATA, tmp_path, flavor=flavor)
    name = next(path for path in source.model_dir.iterdir() if path.name.startswith(("model.", "python_model.")))
    name.write_bytes(name.read_bytes()[:size])
    with pytest.raises((Invalid, Refused), match=name.name):
        FLAVORS[flavor].load(source.model_dir)


def test_a_model_file_outside_its_folder_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "outside.pkl").write_bytes(pickle.dumps(1))
    top = tmp_path / "model"
    top.mkdir()
    (top / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: ../outside.pkl\n")
    with pytest.raises(Invalid, match="not among"):
        FLAVORS["sklearn"].load(top)
