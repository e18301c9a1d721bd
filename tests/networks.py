"""Small Keras networks and SavedModels for tests, and a comparison of a copy with its original, without a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel import networks, tensors
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.values import Signature, TensorSpec


def compared(
    folder: Path, rows: dict[str, Any], to: str, served: str = "", opset: int = 0
) -> tuple[float, dict[str, Any]]:
    """Convert the model in `folder`; return the largest difference on `rows`, alone and together, and its description.

    Labels and shapes must be equal, and equal orders must give equal bytes.
    """
    room, format_ = FLAVORS["tensorflow"], FORMATS[to]
    native: Any = room.load(folder)
    if served:
        native = networks.chosen(native, served)
    signature = Signature(
        kind="tensor",
        inputs=tuple(tensors.specs(rows).values()),
    )
    answers = room.answers(native, folder)
    found = room.predict(native, rows, signature)
    order = Order(
        flavor="tensorflow",
        signature=signature,
        answers=answers,
        opset=opset,
        shapes=tensors.specs(found),
        rows=rows,
    )
    path = folder / f"model{format_.SUFFIX}"
    said = dict(format_.convert(native, order, path))
    format_.check(path)
    first = path.read_bytes()
    format_.convert(native, order, path)
    assert path.read_bytes() == first
    predict = format_.load(path)
    entered = tuple(TensorSpec(**spec) for spec in said["inputs"])  # type: ignore[attr-defined]
    asked = tensors.held(rows, entered)
    worst = 0.0
    for part in (slice(0, 1), slice(0, 2), slice(None)):
        given = predict(tensors.take(asked, part))
        assert set(given) == set(found)
        for name, array in given.items():
            expected = found[name][part]
            assert array.shape == expected.shape, name
            if array.dtype.kind == "f":
                worst = max(worst, float(np.abs(expected - array).max()))
            else:
                assert not tensors.disagree(expected, array).any()
    return worst, said


def laid(model: Any, folder: Path, name: str = "model.keras", **options: Any) -> Path:
    """Save a Keras model below `folder` as MLflow's tensorflow flavor lays it out, and return the folder."""
    (folder / "data").mkdir(parents=True)
    model.save(folder / "data" / name, **options)
    (folder / "MLmodel").write_text("flavors:\n  tensorflow: {data: data, model_type: keras, save_format: tf}\n")
    return folder


def saved(module: Any, folder: Path, signatures: Any = None, extra: str = "") -> Path:
    """Save a module as a SavedModel below `folder`, as MLflow's tensorflow flavor lays it out."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(module, str(folder / "tf2model"), signatures=signatures)
    (folder / "MLmodel").write_text(
        f"flavors:\n  tensorflow: {{model_type: tf2-module, saved_model_dir: tf2model{extra}}}\n"
    )
    return folder


def three() -> tuple[Any, dict[str, Any]]:
    """Return a module, and three signatures of it, none of which is called serving_default."""
    import tensorflow as tf

    class Scores(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            random = np.random.default_rng(1)
            self.weights = tf.Variable(random.normal(size=(4, 3)).astype(np.float32), name="weights")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def scores(self, x: Any) -> Any:
            return {"scores": tf.matmul(x, self.weights)}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def shares(self, x: Any) -> Any:
            return {
                "shares": tf.nn.softmax(tf.matmul(x, self.weights)),
                "best": tf.argmax(tf.matmul(x, self.weights), 1),
            }

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="a"), tf.TensorSpec([None, 4], name="b")])
        def nearness(self, a: Any, b: Any) -> Any:
            return {"nearness": tf.reduce_sum(tf.matmul(a, self.weights) * tf.matmul(b, self.weights), axis=1)}

    module = Scores()
    names = ("scores", "shares", "nearness")
    return module, {name: getattr(module, name).get_concrete_function() for name in names}


def trained_on_device() -> tuple[Any, dict[str, Any]]:
    """Return a module that learns on a device, and its signatures train, infer, save and restore."""
    import tensorflow as tf

    class Learner(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            random = np.random.default_rng(2)
            self.weights = tf.Variable(random.normal(size=(4, 2)).astype(np.float32), name="weights")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x"), tf.TensorSpec([None, 2], name="y")])
        def train(self, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((tf.matmul(x, self.weights) - y) ** 2)
            self.weights.assign_sub(0.1 * tape.gradient(loss, self.weights))
            return {"loss": loss}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def infer(self, x: Any) -> Any:
            return {"output": tf.matmul(x, self.weights)}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
        def save(self, path: Any) -> Any:
            tf.raw_ops.Save(filename=path, tensor_names=["weights"], data=[self.weights.read_value()])
            return {"path": path}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
        def restore(self, path: Any) -> Any:
            found = tf.raw_ops.Restore(file_pattern=path, tensor_name="weights", dt=tf.float32)
            self.weights.assign(found)
            return {"weights": found}

    module = Learner()
    names = ("train", "infer", "save", "restore")
    return module, {name: getattr(module, name).get_concrete_function() for name in names}
