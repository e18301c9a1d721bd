"""What every format must do, for every flavor that it lists: a new one is tested by being listed."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_iris

from modelrel.errors import ModelrelError
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS
from modelrel.values import Signature, SourceModel, TensorSpec
from tests.formats.pmml import java
from tests.models import compared, wrapper
from tests.networks import laid


def pair(name: str, flavor: str) -> Any:
    return pytest.param(name, flavor, marks=[java] if name == "pmml" else [])


NETWORKS = {"pytorch", "transformers"}  # test_onnx_torch.py, test_onnx_transformers.py
PAIRS = [pair(name, flavor) for name, room in FORMATS.items() for flavor in sorted(room.FLAVORS)]
KERAS = {"tensorflow", "keras"}  # loaded without a folder here, and format python packs the folder: test_matrix.py
TABLES = [
    pair(name, flavor)
    for name, room in FORMATS.items()
    for flavor in sorted(room.FLAVORS - NETWORKS - (KERAS if name == "python" else set()))
]


def trained(flavor: str) -> Any:
    data, target = load_iris(return_X_y=True)
    if flavor == "sklearn":
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(random_state=0).fit(data, target), data
    if flavor in ("onnx", "pyfunc"):
        model, _ = trained("sklearn")
        return (wrapper(model) if flavor == "pyfunc" else graph_of(model, data)), data
    if flavor == "xgboost":
        import xgboost

        return xgboost.XGBClassifier(n_estimators=2).fit(data, target), data
    if flavor == "catboost":
        import catboost

        options = {"iterations": 2, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
        return catboost.CatBoostClassifier(**options).fit(data, target), data
    if flavor in ("tensorflow", "keras"):
        import keras

        with TemporaryDirectory() as folder:
            model = keras.Sequential([keras.Input((4,), name="input"), keras.layers.Dense(3, activation="softmax")])
            return FLAVORS[flavor].load(laid(model, Path(folder) / "source")), data.astype(np.float32)
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(data, target), data


def graph_of(model: Any, data: Any) -> Any:
    """Return our own copy of a model, as somebody might log it."""
    with TemporaryDirectory() as folder:
        return onnx.load_model_from_string(compared(model, data, Path(folder)).content)


@pytest.mark.parametrize(("name", "flavor"), PAIRS)
def test_a_listed_flavor_is_known(name: str, flavor: str) -> None:
    assert flavor in FLAVORS
    assert FORMATS[name].SUFFIX.startswith(".")


@pytest.mark.parametrize(("name", "flavor"), TABLES)
def test_converting_twice_gives_the_same_bytes(name: str, flavor: str, tmp_path: Path) -> None:
    model, data = trained(flavor)
    first, second = (compared(model, data, tmp_path, flavor, to=name) for _ in range(2))  # type: ignore[arg-type]
    assert first.content == second.content


@pytest.mark.parametrize(("name", "flavor"), TABLES)
def test_one_row_is_answered_as_among_many(name: str, flavor: str, tmp_path: Path) -> None:
    model, data = trained(flavor)
    compared(model, data, tmp_path, flavor, to=name)  # type: ignore[arg-type]
    predict = FORMATS[name].load(tmp_path / f"model{FORMATS[name].SUFFIX}")
    whole, alone = predict({"input": data}), predict({"input": data[70:71]})
    numbers = "prediction" if flavor in ("tensorflow", "keras") else "probabilities"
    assert list(whole) == (["label", numbers] if numbers == "probabilities" else [numbers])
    if "label" in whole:
        assert whole["label"][70:71].tolist() == alone["label"].tolist()
    # A matrix product may add up in another order for another number of rows.
    assert np.allclose(whole[numbers][70:71], alone[numbers], rtol=0, atol=1e-6 if numbers == "prediction" else 0)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("content", [b"\x08", b"no model at all"], ids=["cut", "noise"])
def test_a_file_that_is_no_model_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[name].SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(ModelrelError):
        FORMATS[name].check(path)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_file_that_is_no_model_is_not_loaded(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[name].SUFFIX}"
    path.write_bytes(b"no model at all")
    with pytest.raises(ModelrelError):
        FORMATS[name].load(path)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_file_says_where_it_comes_from(name: str, tmp_path: Path) -> None:
    signature = Signature(kind="columns", inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1, 1)),))
    source = SourceModel(
        folder=tmp_path,
        name="churn",
        version="7",
        uri="",
        registry="",
        flavor="sklearn",
        flavors=(),
        signature=signature,
        run_id="abc",
    )
    said = FORMATS[name].metadata(source, {"b": "2", "a": "1"})
    assert (said["modelrel.model"], said["modelrel.version"], said["modelrel.run_id"]) == ("churn", "7", "abc")
    assert said["modelrel.source_digest"] == source.digest
    assert json.loads(said["modelrel.tools"]) == {"a": "1", "b": "2"}
