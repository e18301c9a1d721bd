"""Keras networks made smaller: accuracy of original and copy on digits that neither has seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits

from modelrel import tensors
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.measured import BUDGETS, Quantize
from modelrel.tensors import Array
from modelrel.values import Signature, TensorSpec
from tests.models import logged

keras = pytest.importorskip("keras")
MODES: tuple[Quantize, ...] = ("float16", "dynamic", "int8")
IMAGES = (load_digits().images / 16).astype(np.float32)
DIGIT = load_digits().target
KNOWN = 1200

Copy = tuple[Path, dict[str, Any], Array, Array]
"""The file, what was said of it, and the answers of original and copy to the digits that are new."""


def trained(*layers: Any, epochs: int) -> Any:
    model = keras.Sequential([keras.Input((8, 8)), *layers, keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES[:KNOWN], DIGIT[:KNOWN], epochs=epochs, verbose=0)
    return model


def small(folder: Path, to: str, mode: Quantize) -> Copy:
    """Convert the logged model in this process, calibrated on digits that it was trained on."""
    room, format_ = FLAVORS["tensorflow"], FORMATS[to]
    native = room.load(folder)
    signature = Signature(kind="tensor", inputs=(TensorSpec(name="input", datatype="FP32", shape=(-1, 8, 8)),))
    new = {"input": IMAGES[KNOWN:]}
    found = room.predict(native, new, signature)["prediction"]
    order = Order(
        flavor="tensorflow",
        signature=signature,
        answers=room.answers(native, folder),
        shapes={"prediction": TensorSpec(name="prediction", datatype="FP32", shape=(-1, 10))},
        rows={"input": IMAGES[:300]},
        quantize=mode,
    )
    path = folder / f"{mode}{format_.SUFFIX}"
    said = dict(format_.convert(native, order, path))
    format_.check(path)
    return path, said, found, format_.load(path)(new)["prediction"]


Made = Callable[[str, Quantize], Copy]


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return what makes the copies of one convolutional network, each once."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = trained(
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        epochs=8,
    )
    source = logged(model, IMAGES, tmp_path_factory.mktemp("cnn"), flavor="tensorflow")
    return cache(lambda to, mode: small(source.model_dir, to, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_convolutional_network_is_smaller_and_as_accurate(convolutions: Made, to: str, mode: Quantize) -> None:
    path, said, original, copy = convolutions(to, mode)
    may, right = BUDGETS[mode], DIGIT[KNOWN:]
    assert path.stat().st_size < 0.6 * said["exact_size"]
    assert (original.argmax(axis=1) == copy.argmax(axis=1)).mean() >= may.agreement
    off = tensors.errors(original, copy)[0]
    assert (off.max() <= may.max_error, off.mean() <= may.mean_error) == (True, True)
    accuracy = [float((one.argmax(axis=1) == right).mean()) for one in (original, copy)]
    assert accuracy[0] > 0.88
    assert accuracy[0] - accuracy[1] <= may.drop


def test_convolutions_of_an_int8_onnx_copy_take_whole_numbers(convolutions: Made) -> None:
    graph = onnx.load(convolutions("onnx", "int8")[0]).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert {node.op_type for node in layers} >= {"Conv"}
    assert {made[node.input[place]] for node in layers for place in (0, 1)} == {"DequantizeLinear"}


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a logged LSTM, which reads a digit line by line."""
    keras.utils.set_random_seed(0)
    model = trained(keras.layers.LSTM(32), epochs=20)
    return logged(model, IMAGES, tmp_path_factory.mktemp("lstm"), flavor="tensorflow").model_dir


@pytest.mark.parametrize("mode", ["float16", "dynamic"])
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_recurrent_network_keeps_to_its_budget(recurrent: Path, to: str, mode: Quantize) -> None:
    path, said, original, copy = small(recurrent, to, mode)
    assert path.stat().st_size < 0.75 * said["exact_size"]
    assert (original.argmax(axis=1) == copy.argmax(axis=1)).mean() >= BUDGETS[mode].agreement
    predict = FORMATS[to].load(path)
    apart = np.concatenate(
        [predict({"input": IMAGES[KNOWN + row : KNOWN + row + 1]})["prediction"] for row in range(9)]
    )
    assert np.abs(apart - copy[:9]).max() < 1e-5
