"""What can become what: one real model of each kind, and what each format makes of it, for README's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from modelrel.values import SourceModel
from tests import models
from tests.models import Flavor, logged, pulled

FORMATS: Final = ("onnx", "tflite", "pmml", "python")

ROWS: Final = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
SIDE: Final = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)


def saved(library: Flavor, model: Any, folder: Path, data: Any, **options: Any) -> SourceModel:
    """Log a model with one of MLflow's flavors, in the order in which the cases are read: what, where, its rows."""
    return logged(model, data, folder, flavor=library, **options)


def people() -> tuple[pd.DataFrame, Any]:
    """Return rows of numbers and words, some missing, and a label in words."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": np.where(random.random(200) < 0.1, np.nan, random.integers(18, 90, 200)),
            "income": random.normal(3000, 900, 200),
            "city": random.choice(["Köln", "Paris", "東京"], 200),
            "plan": random.choice(["basic", "pro"], 200),
        }
    )
    label = np.where((frame.income > 3000) ^ (frame.city == "Paris"), "stays", "leaves")
    return frame, label


def pipeline(folder: Path) -> SourceModel:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame, label = people()
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, label)
    return saved("sklearn", model, folder, frame)


def forest(folder: Path) -> SourceModel:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(30, max_depth=6, random_state=0).fit(ROWS, SIDE)
    return saved("sklearn", model, folder, ROWS)


def network(folder: Path) -> SourceModel:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((16,), max_iter=60, random_state=0).fit(ROWS, SIDE)
    return saved("sklearn", model, folder, ROWS)


def text(folder: Path) -> SourceModel:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = ["good great film", "bad awful film", "I don't like it", "naïve café scene", "great acting", "awful sound"]
    said = pd.Series([f"{one} {two}" for one in words for two in words], name="text")
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(
        said, ["good" in one or "great" in one for one in said]
    )
    return saved("sklearn", model, folder, said.to_numpy())


def boosted(folder: Path) -> SourceModel:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=300, max_depth=4, learning_rate=0.05).fit(ROWS, SIDE)
    return saved("xgboost", model, folder, ROWS)


def categories(folder: Path) -> SourceModel:
    import lightgbm

    random = np.random.default_rng(2)
    data = np.column_stack([random.integers(0, 12, 400), random.normal(size=400)]).astype(np.float64)
    label = np.isin(data[:, 0], [1, 4, 5, 9]) ^ (data[:, 1] > 1)
    model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(data, label, categorical_feature=[0])
    return saved("lightgbm", model, folder, data)


def cat(folder: Path) -> SourceModel:
    import catboost

    model = catboost.CatBoostClassifier(iterations=30, depth=4, verbose=0, allow_writing_files=False)
    return saved("catboost", model.fit(ROWS, SIDE), folder, ROWS)


def keras_cnn(folder: Path) -> SourceModel:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    return saved("tensorflow", model, folder, np.random.default_rng(3).random((20, 8, 8, 1)).astype(np.float32))


def keras_lstm(folder: Path) -> SourceModel:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(5), keras.layers.Dense(1)])
    return saved("tensorflow", model, folder, np.random.default_rng(3).random((20, 6, 3)).astype(np.float32))


def keras_2(folder: Path) -> SourceModel:
    """A SavedModel that Keras 2 wrote, with the slots of its optimizer."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(3), tf_keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(ROWS, SIDE, epochs=1, verbose=0)
    model.save(str(folder / "old"), save_format="tf")
    return _saved_model(folder)


def signatures(folder: Path) -> SourceModel:
    """A SavedModel with three signatures, one of them the default."""
    import tensorflow as tf

    class Three(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(np.linspace(-1, 1, 8).reshape(4, 2).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def scores(self, x: Any) -> Any:
            return {"scores": x @ self.weight}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def shares(self, x: Any) -> Any:
            return {"shares": tf.nn.softmax(x @ self.weight)}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def squares(self, x: Any) -> Any:
            return {"squares": x * x}

    model = Three()
    chosen = {"serving_default": model.scores, "shares": model.shares, "squares": model.squares}
    tf.saved_model.save(model, str(folder / "old"), signatures=chosen)
    return _saved_model(folder)


def _saved_model(folder: Path) -> SourceModel:
    """Lay out a SavedModel as MLflow's tensorflow flavor does, which itself loads it first."""
    import shutil

    from mlflow.models import Model, infer_signature

    top = folder / "source"
    top.mkdir()
    shutil.move(folder / "old", top / "tf2model")
    said = Model(signature=infer_signature(ROWS))
    said.add_flavor("tensorflow", model_type="tf2-module", saved_model_dir="tf2model", code=None)
    said.add_flavor("python_function", loader_module="mlflow.tensorflow", env="python_env.yaml")
    said.save(str(top / "MLmodel"))
    return pulled(folder, "tensorflow")


def branching(folder: Path) -> SourceModel:
    """A PyTorch module that decides by its rows in plain Python."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            if bool(torch.isnan(x).any()):
                x = torch.where(torch.isnan(x), 0.5, x)
            return self.line(x)

    return saved("pytorch", Net(), folder, ROWS, serialization_format="pickle")


def scripted(folder: Path) -> SourceModel:
    """The same kind of branch in TorchScript, which keeps it."""
    import torch

    from tests.formats import modules

    return saved(
        "pytorch", torch.jit.script(modules.seeded(modules.Cleaned)), folder, ROWS, serialization_format="pickle"
    )


def torch_mlp(folder: Path) -> SourceModel:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return saved("pytorch", model, folder, ROWS, serialization_format="pickle")


def torch_cnn(folder: Path) -> SourceModel:
    """Batch normalisation that has seen data, a residual connection, a convolution of each channel."""
    import cloudpickle

    from tests.formats import modules

    images = np.random.default_rng(3).normal(0, 1, (20, 4, 9, 8)).astype(np.float32)
    cloudpickle.register_pickle_by_value(modules)
    try:
        return saved("pytorch", modules.residual(images), folder, images, serialization_format="pickle")
    finally:
        cloudpickle.unregister_pickle_by_value(modules)


def onnx_file(folder: Path) -> SourceModel:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    return saved("onnx", to_onnx(LinearRegression().fit(ROWS, ROWS[:, 0]), ROWS[:1]), folder, ROWS)


def wrapper(folder: Path) -> SourceModel:
    """A Python model that only hands its rows to a scikit-learn one."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(5, random_state=0).fit(ROWS, SIDE)
    return saved("pyfunc", models.wrapper(model), folder, ROWS)


def own(folder: Path) -> SourceModel:
    """A Python model with a mind of its own."""
    import mlflow

    class Own(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return np.asarray(model_input).sum(axis=1) * 2

    return saved("pyfunc", Own(), folder, ROWS)


@dataclass(frozen=True)
class Case:
    """One kind of model: what README calls it, how one is made, and format -> "" (verified) or words of the refusal."""

    title: str
    make: Callable[[Path], SourceModel]
    no: dict[str, str]


def pipeline_of_transformers(folder: Path) -> SourceModel:
    from tests.formats import pipelines

    return pipelines.logged(folder, {"truncation": True})


_NETWORK: Final = {"pmml": "cannot become pmml"}
CASES: Final = {
    case.make.__name__: case
    for case in (
        Case("scikit-learn: numbers and words (ColumnTransformer), logistic regression", pipeline, {}),
        Case("scikit-learn: random forest", forest, {}),
        Case("scikit-learn: perceptron (MLP)", network, {"pmml": "MLPClassifier has no form in PMML"}),
        Case(
            "scikit-learn: texts (tf-idf), logistic regression", text, {"pmml": "TfidfVectorizer has no form in PMML"}
        ),
        Case("XGBoost, 300 trees", boosted, {}),
        Case("LightGBM with categories", categories, {}),
        Case("CatBoost", cat, {}),
        Case("Keras: convolutions", keras_cnn, _NETWORK),
        Case("Keras: LSTM", keras_lstm, _NETWORK),
        Case("Keras 2: SavedModel with its optimizer", keras_2, _NETWORK),
        Case("TensorFlow: SavedModel with three signatures", signatures, _NETWORK),
        Case("PyTorch: dense layers", torch_mlp, _NETWORK),
        Case("PyTorch: convolutions", torch_cnn, _NETWORK),
        Case(
            "PyTorch: a branch on the data",
            branching,
            _NETWORK | {"onnx": "branches on its data", "tflite": "branches on its data"},
        ),
        Case("PyTorch: the same branch in TorchScript", scripted, _NETWORK | {"tflite": "it needs If"}),
        Case(
            "transformers: text classification",
            pipeline_of_transformers,
            _NETWORK | {"tflite": "cannot become tflite"},
        ),
        Case("ONNX: linear regression", onnx_file, _NETWORK),
        Case("pyfunc: a wrapper around a model", wrapper, {}),
        Case(
            "pyfunc: a Python model of its own",
            own,
            dict.fromkeys(("onnx", "tflite", "pmml"), "is a Python model of its own"),
        ),
    )
}


def table() -> str:
    """Return README's table of what becomes what."""
    lines = ["| model | " + " | ".join(FORMATS) + " |", "|---" * (len(FORMATS) + 1) + "|"]
    for case in CASES.values():
        cells = [f"no: {case.no[form]}" if form in case.no else "✓" for form in FORMATS]
        lines.append(f"| {case.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
