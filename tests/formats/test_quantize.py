"""Smaller copies: what each mode writes, in both formats, and what it costs on real rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.formats.tflite import smaller
from modelrel.measured import BUDGETS, Quantize, Units
from modelrel.probes import rows
from modelrel.tensors import Array
from modelrel.values import TensorSpec
from tests.models import people, prepared, signature_of

MODES: tuple[Quantize, ...] = ("float16", "dynamic", "int8")
DIGITS, DIGIT = load_digits(return_X_y=True)
KNOWN = 1200  # the first of them are for training


@dataclass
class Small:
    """A copy that was made smaller: where it is, what was said of it, and both models' answers to all rows."""

    path: Path
    said: dict[str, Any]
    given: dict[str, Array]
    original: dict[str, Array]
    copy: dict[str, Array]

    def agreement(self) -> float:
        return 1 - float(tensors.disagree(self.original["label"], self.copy["label"]).mean())

    def off(self, name: str) -> Array:
        return tensors.errors(self.original[name], self.copy[name])[0]


def small(model: Any, data: Any, folder: Path, to: str, mode: Quantize) -> Small:
    """Convert `model` in this process, calibrated on the first rows of `data`, and ask both about all of them."""
    (folder / "MLmodel").write_text("flavors:\n  sklearn: {}\n  python_function: {}\n")
    room, format_, signature = FLAVORS["sklearn"], FORMATS[to], signature_of(data)
    real = rows.fitted(data, signature, "test")
    found = room.predict(model, real, signature)
    order = Order(
        flavor="sklearn",
        signature=signature,
        answers=room.answers(model, folder),
        shapes=tensors.specs(found),
        rows=tensors.take(real, slice(0, 300)),
        quantize=mode,
    )
    path = folder / f"model{format_.SUFFIX}"
    said = dict(format_.convert(model, order, path))
    first = path.read_bytes()
    format_.convert(model, order, path)
    assert path.read_bytes() == first, "the same order gives other bytes"
    format_.check(path)
    given = tensors.held(real, [TensorSpec(**spec) for spec in said["inputs"]])  # type: ignore[attr-defined]
    return Small(path, said, given, found, format_.load(path)(given))


Made = Callable[[str, Quantize], Small]


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return what makes the copies of one perceptron of digits, each once."""
    model = make_pipeline(MinMaxScaler(), MLPClassifier((64,), max_iter=100, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(DIGITS[:KNOWN], DIGIT[:KNOWN])
    return cache(lambda to, mode: small(model, DIGITS, tmp_path_factory.mktemp("digits"), to, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_perceptron_of_digits_is_smaller_and_within_the_budget(perceptron: Made, to: str, mode: Quantize) -> None:
    found, may = perceptron(to, mode), BUDGETS[mode]
    assert found.path.stat().st_size < 0.65 * found.said["exact_size"]
    assert found.agreement() >= may.agreement
    off = found.off("probabilities")
    assert (off.max() <= may.max_error, off.mean() <= may.mean_error) == (True, True)
    accuracy = [float((one["label"] == DIGIT)[KNOWN:].mean()) for one in (found.original, found.copy)]
    assert accuracy[0] - accuracy[1] <= may.drop


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_the_interface_is_that_of_the_exact_copy(perceptron: Made, to: str, mode: Quantize) -> None:
    found = perceptron(to, mode)
    wide = "FP64" if to == "onnx" else "FP32"
    assert [(one["name"], one["datatype"]) for one in found.said["inputs"]] == [("input", wide)]
    kinds = {name: tensors.datatype(array.dtype) for name, array in found.copy.items()}
    assert kinds == {"label": "INT64", "probabilities": wide}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_row_is_answered_alike_alone_and_among_others(perceptron: Made, to: str, mode: Quantize) -> None:
    found = perceptron(to, mode)
    predict = FORMATS[to].load(found.path)
    for size in (1, 7):
        pieces = [predict(tensors.take(found.given, slice(at, at + size))) for at in range(0, 42, size)]
        apart = tensors.stack(list(pieces))
        assert np.abs(apart["probabilities"] - found.copy["probabilities"][:42]).max() < 1e-6
        assert (apart["label"] == found.copy["label"][:42]).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_regressor_is_within_the_budget(to: str, mode: Quantize, tmp_path: Path) -> None:
    data, target = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(64, 32), max_iter=200, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data, target)
    found = small(model, data, tmp_path, to, mode)
    unit = found.original["prediction"].std()
    off = found.off("prediction") / unit
    assert (off.max() <= BUDGETS[mode].max_error, off.mean() <= BUDGETS[mode].mean_error) == (True, True)


@pytest.mark.parametrize(("to", "mode"), [("onnx", "dynamic"), ("onnx", "int8"), ("tflite", "int8")])
def test_a_linear_model_keeps_its_labels(to: str, mode: Quantize, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(DIGITS[:KNOWN], DIGIT[:KNOWN])
    found = small(model, DIGITS, tmp_path, to, mode)
    assert found.agreement() >= BUDGETS[mode].agreement
    best = found.copy["probabilities"].argmax(axis=1)
    assert (found.copy["label"] == best).mean() > 0.99


@pytest.mark.parametrize(("to", "mode"), [("onnx", "dynamic"), ("onnx", "int8"), ("tflite", "dynamic")])
def test_columns_of_different_sizes_that_a_scaler_evens_out_cost_nothing(
    to: str, mode: Quantize, tmp_path: Path
) -> None:
    picked = DIGITS[:, [2, 3, 4, 5, 10, 11, 12, 13, 18, 20, 21, 26, 27, 28, 36, 42, 43, 44]]
    frame = pd.DataFrame(picked * 10.0 ** np.linspace(-2, 2, 18), columns=[f"c {number}" for number in range(18)])
    model = make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=60, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame[:KNOWN], DIGIT[:KNOWN])
    found = small(model, frame, tmp_path, to, mode)
    assert found.agreement() >= BUDGETS[mode].agreement
    assert found.off("probabilities").mean() <= BUDGETS[mode].mean_error


@pytest.mark.parametrize("mode", MODES)
def test_a_pipeline_with_text_is_made_smaller_in_onnx(mode: Quantize, tmp_path: Path) -> None:
    frame, classes, _ = people()
    model = make_pipeline(prepared(), MLPClassifier((32, 16), max_iter=80, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame, classes)
    found = small(model, frame, tmp_path, "onnx", mode)
    assert found.path.stat().st_size < found.said["exact_size"]
    assert found.agreement() >= BUDGETS[mode].agreement


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_trees_are_refused_for_nothing_in_them_can_be_smaller(to: str, mode: Quantize, tmp_path: Path) -> None:
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(DIGITS, DIGIT)
    with pytest.raises(
        Refused, match=r"nothing in the \w+ copy of DecisionTreeClassifier can be made smaller by"
    ) as stop:
        small(model, DIGITS, tmp_path, to, mode)
    assert "--quantize" in stop.value.hint


def test_a_tflite_file_that_the_converter_leaves_as_it_is_is_refused(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=300).fit(DIGITS[:300] / 16, DIGIT[:300])
    with pytest.raises(Refused, match=r"it has [\d,]+ bytes then, and [\d,]+ without"):
        small(model, DIGITS / 16, tmp_path, "tflite", "dynamic")


def test_an_int8_tflite_file_takes_and_gives_whole_numbers(perceptron: Made) -> None:
    found = perceptron("tflite", "int8")
    runner = Interpreter(model_path=str(found.path)).get_signature_runner("serving_default")
    assert runner.get_input_details()["input"]["dtype"] is np.int8
    kinds = {name: said["dtype"] for name, said in runner.get_output_details().items()}
    assert kinds == {"label": np.int64, "probabilities": np.int8}
    units = {one["name"]: one for one in found.said["units"]}
    assert set(units) == {"input", "probabilities"}
    assert (units["probabilities"]["scale"], units["probabilities"]["zero_point"]) == (1 / 256, -128)
    assert math.isclose(units["input"]["scale"], 16 / 255, rel_tol=1e-5)


def test_an_int8_onnx_file_computes_its_layers_in_whole_numbers(perceptron: Made) -> None:
    found = perceptron("onnx", "int8")
    model = onnx.load(found.path)
    made = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(layers) == 2
    assert {made[name].op_type for node in layers for name in node.input} == {"DequantizeLinear"}
    assert not any(constant.data_type == onnx.TensorProto.DOUBLE for constant in model.graph.initializer)
    # 7 bits, for processors that add two products in 16
    whole = [numpy_helper.to_array(one) for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(one.astype(int)).max()) for one in whole if one.ndim == 2) <= 64


def test_weights_beyond_float16_stay_as_they_are(tmp_path: Path) -> None:
    model = Ridge().fit(DIGITS, np.stack([DIGIT * 1e9, DIGIT * 2e9], axis=1))
    with pytest.raises(Refused, match="it holds no matrix of 64 weights or more that can"):
        small(model, DIGITS[:400], tmp_path, "onnx", "float16")


def test_real_and_whole_numbers_stand_for_each_other() -> None:
    unit = Units(name="x", datatype="INT8", scale=0.5, zero_point=-3)
    array = np.array([0.0, 1.0, -62.5, 1e9, -np.inf, np.nan, 0.26])
    whole = smaller.whole(array, unit)
    assert whole.tolist() == [-3, -1, -128, 127, -128, -3, -2]
    assert smaller.real(whole, unit).tolist() == [0.0, 1.0, -62.5, 65.0, -62.5, 0.0, 0.5]
