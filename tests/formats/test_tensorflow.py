"""TensorFlow models answer the same in ONNX and in TFLite, whatever layers they have and however they were saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, VerifyOptions
from tests.models import logged, pulled
from tests.networks import compared, laid, saved, three, trained_on_device

keras = pytest.importorskip("keras")
RANDOM = np.random.default_rng(0)
FLAT = RANDOM.normal(size=(9, 4)).astype(np.float32)
STEPS = RANDOM.normal(size=(9, 6, 3)).astype(np.float32)
IMAGES = RANDOM.random((40, 12, 12, 1)).astype(np.float32)
TOKENS = RANDOM.integers(0, 20, (9, 7)).astype(np.int32)
BOTH = pytest.mark.parametrize("to", ["onnx", "tflite"])


def stacked(shape: tuple[Any, ...], *layers: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


def cnn() -> Any:
    of = keras.layers
    return stacked(
        (12, 12, 1), of.Rescaling(2.0, -0.5), of.Conv2D(4, 3, activation="relu"), of.BatchNormalization(),
        of.MaxPooling2D(), of.Dropout(0.5), of.Flatten(), of.Dense(5, activation="softmax"),
    )  # fmt: skip


def dense() -> Any:
    normal = keras.layers.Normalization()
    normal.adapt(FLAT * 3 + 1)
    kinds = ("gelu", "selu", "elu", "softplus", "mish", "hard_sigmoid", "swish")
    return stacked((4,), normal, *(keras.layers.Dense(4, activation=kind) for kind in kinds))


def attention() -> Any:
    of = keras.layers
    entered = keras.Input((6, 3))
    seen = of.LayerNormalization()(of.MultiHeadAttention(2, 4)(entered, entered) + entered)
    return keras.Model(entered, of.Dense(2)(of.GlobalAveragePooling1D()(seen)))


def bidirectional() -> Any:
    of = keras.layers
    return stacked((6, 3), of.Bidirectional(of.GRU(5)), of.Dense(2))


def masked() -> Any:
    of = keras.layers
    entered = keras.Input((7,), dtype="int32")
    return keras.Model(entered, of.Dense(2)(of.LSTM(4)(of.Embedding(20, 5, mask_zero=True)(entered))))


def several() -> Any:
    of = keras.layers
    number, token = keras.Input((4,), name="number"), keras.Input((7,), dtype="int32", name="token")
    joined = of.Concatenate()([number, of.GlobalAveragePooling1D()(of.Embedding(20, 5)(token))])
    said = {"score": of.Dense(1, activation="sigmoid")(joined), "kind": of.Dense(3, activation="softmax")(joined)}
    return keras.Model([number, token], said)


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "convolutions": (cnn, {"input": IMAGES}),
    "activations after a normalization": (dense, {"input": FLAT}),
    "attention": (attention, {"input": STEPS}),
    "an lstm of any length": (lambda: stacked((None, 3), keras.layers.LSTM(4)), {"input": STEPS}),
    "a gru both ways": (bidirectional, {"input": STEPS}),
    "an lstm with a mask": (masked, {"input": TOKENS}),
    "several inputs and outputs": (several, {"token": TOKENS, "number": FLAT}),
}


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_a_keras_model_answers_alike_in_any_batch_and_gives_the_same_bytes(name: str, to: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    make, rows = CASES[name]
    worst, said = compared(laid(make(), tmp_path / "source"), rows, to)
    assert worst < 2e-6
    if name == "several inputs and outputs":
        assert [spec["name"] for spec in said["outputs"]] == ["kind", "score"]


def test_words_and_bins_are_looked_up_in_onnx(tmp_path: Path) -> None:
    of = keras.layers
    word, number = keras.Input((1,), dtype="string", name="word"), keras.Input((4,), name="number")
    coded = of.StringLookup(vocabulary=["a", "b", "ü"], output_mode="one_hot")(word)
    bins = of.Discretization(bin_boundaries=[-1.0, 0.0, 0.5])(number)
    counted = of.CategoryEncoding(4, output_mode="multi_hot")(bins)
    model = keras.Model([word, number], of.Dense(2)(of.Concatenate()([coded, counted])))
    words = np.array([["a"], ["b"], ["never"], [""], ["ü"]], object)
    numbers = np.array(
        [[-1, 0, 0.5, 9], [-2, -1.5, -3, -9], [0.49, 0.5, 0.51, 0], [1, 2, 3, 4], [0, 0, 0, 0]], np.float32
    )
    rows = {"word": words, "number": numbers}
    assert compared(laid(model, tmp_path / "source"), rows, "onnx")[0] < 1e-6
    with pytest.raises(Refused, match="the input word is text"):
        compared(tmp_path / "source", rows, "tflite")


def test_an_operator_that_onnx_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    import tensorflow as tf

    class Odd(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def answer(self, x: Any) -> Any:
            return {"y": tf.math.betainc(tf.abs(x), tf.abs(x), tf.sigmoid(x))}

    module = Odd()
    folder = saved(module, tmp_path, {"serving_default": module.answer.get_concrete_function()})
    with pytest.raises(Refused, match="Betainc"):
        compared(folder, {"x": FLAT}, "onnx")
    with pytest.raises(Refused, match="Betainc"):
        compared(folder, {"x": FLAT}, "tflite")


def test_an_opset_that_tf2onnx_does_not_write_is_invalid(tmp_path: Path) -> None:
    folder = laid(stacked((4,), keras.layers.Dense(2, activation="gelu")), tmp_path / "source")
    assert compared(folder, {"input": FLAT}, "onnx", opset=15)[1]["opsets"] == {"ai.onnx": 15}
    with pytest.raises(Invalid, match="opset 22 cannot be written for a TensorFlow model"):
        compared(folder, {"input": FLAT}, "onnx", opset=22)


@pytest.mark.parametrize(("layer", "to"), [("LSTM", "tflite"), ("Flatten", "onnx")])
def test_a_model_of_keras_2_with_its_optimizer_is_converted(layer: str, to: str, tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    of = tf_keras.layers
    first = of.Flatten(input_shape=(6, 3)) if layer == "Flatten" else getattr(of, layer)(4, input_shape=(6, 3))
    model = tf_keras.Sequential([first, of.Dense(2)])
    model.compile("adam", "mse")
    model.fit(STEPS, np.zeros((9, 2)), verbose=0)
    worst, said = compared(laid(model, tmp_path / "source", "model", save_format="tf"), {"input": STEPS}, to)
    assert worst < 1e-6
    assert said["outputs"][0]["name"] == model.output_names[0]


@BOTH
def test_the_served_one_of_three_signatures_is_chosen(to: str, tmp_path: Path) -> None:
    module, signatures = three()
    folder = saved(module, tmp_path, signatures)
    assert compared(folder, {"x": FLAT}, to, "scores")[1]["outputs"][0]["name"] == "scores"
    worst, said = compared(folder, {"x": FLAT}, to, "shares")
    assert (worst < 1e-6, {spec["name"] for spec in said["outputs"]}) == (True, {"shares", "best"})
    assert compared(folder, {"b": FLAT[::-1], "a": FLAT}, to, "nearness")[0] < 1e-5


def test_signatures_for_training_on_the_device_are_kept(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    module, signatures = trained_on_device()
    worst, said = compared(saved(module, tmp_path, signatures), {"x": FLAT}, "tflite", "infer")
    assert worst < 1e-6
    kept = Interpreter(model_content=(tmp_path / "model.tflite").read_bytes()).get_signature_list()
    assert {"serving_default", "infer", "train", "save", "restore"} == set(kept)
    assert kept["train"]["inputs"] == ["x", "y"]
    (note,) = said["notes"]
    assert "save (needs TensorFlow's Save in the app" in note
    with pytest.raises(Refused, match="changes its own variables"):
        compared(tmp_path, {"x": FLAT, "y": FLAT[:, :2]}, "tflite", "train")


@pytest.mark.parametrize(
    ("make", "rows", "to"), [(cnn, IMAGES, "tflite"), (bidirectional, STEPS, "onnx")], ids=["cnn", "bidirectional"]
)
def test_a_logged_network_is_converted_and_proven_in_workers(make: Any, rows: Any, to: str, tmp_path: Path) -> None:
    source = logged(make(), rows, tmp_path, flavor="tensorflow")
    report = verify(convert(source, to, ConvertOptions()), VerifyOptions(rows=300))
    (output,) = report.outputs
    assert (output.name, output.disagreements, output.rows >= 300) == ("prediction", 0, True)


def test_a_signature_that_is_not_there_or_not_chosen_is_named(tmp_path: Path) -> None:
    module, signatures = three()
    saved(module, tmp_path / "source", signatures)
    source = pulled(tmp_path, "tensorflow")
    assert source.signature is None
    assert set(source.signatures) == set(signatures)
    with pytest.raises(Refused, match=r"3 signatures, and none is the default: nearness\(a FP32\[-1, 4\]"):
        convert(source, "onnx", ConvertOptions())
    with pytest.raises(Invalid, match="no signature 'score'"):
        convert(source, "onnx", ConvertOptions(signature="score"))


def test_a_copy_names_no_operator_of_tensorflow(tmp_path: Path) -> None:
    compared(laid(dense(), tmp_path / "source"), {"input": FLAT}, "onnx")
    graph = onnx.load(tmp_path / "source" / "model.onnx").graph
    assert {node.domain for node in graph.node} == {""}
    assert "Erf" in {node.op_type for node in graph.node}
    FORMATS["onnx"].check(tmp_path / "source" / "model.onnx")
