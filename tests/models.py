"""Small real models: trained, logged with MLflow, laid out as `pull` leaves them; and compared without a worker."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modelrel import archive, tensors
from modelrel.flavors import FLAVORS, pyfunc
from modelrel.formats import FORMATS, Order, behind
from modelrel.probes import rows
from modelrel.probes.generated import Maker
from modelrel.probes.interview import Answered
from modelrel.registry import mlmodel
from modelrel.serving import adapters
from modelrel.tensors import Array
from modelrel.values import Operators, Signature, SourceModel, TensorSpec

Flavor = Literal["sklearn", "xgboost", "lightgbm", "catboost", "onnx", "pyfunc", "tensorflow", "keras", "pytorch"]


def logged(model: Any, data: Any, folder: Path, *, flavor: Flavor = "sklearn", **options: Any) -> SourceModel:
    """Log `model` with its flavor below `folder`, with the signature and the first rows of `data`."""
    import mlflow
    from mlflow.models import infer_signature

    options.setdefault("input_example", data[:5])
    if flavor == "sklearn":
        options.setdefault("serialization_format", "cloudpickle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options.setdefault("signature", infer_signature(data))
        # Named requirements spare MLflow the process in which it finds them out.
        options.setdefault("pip_requirements", [f"scikit-learn=={version('scikit-learn')}", "numpy"])
        if flavor == "pyfunc":
            mlflow.pyfunc.save_model(folder / "source", python_model=model, **options)
        else:
            getattr(mlflow, flavor).save_model(model, folder / "source", **options)
    return pulled(folder, flavor)


def pulled(folder: Path, flavor: str, name: str = "churn", version: str = "7") -> SourceModel:
    """Return the value that `pull` makes of the MLflow model in `folder / "source"`."""
    top = folder / "source"
    said = mlmodel.read(top)
    return SourceModel(
        folder=folder,
        name=name,
        version=version,
        uri=f"models:/{name}/{version}",
        registry="sqlite:///mlflow.db",
        flavor=flavor,
        flavors=said.flavors,
        signature=said.signature,
        signatures=said.signatures,
        run_id="0123456789abcdef0123456789abcdef",
        input_example=said.input_example,
        files=archive.describe_tree(top, folder),
    )


def by_hand(folder: Path, content: bytes, requirements: str = "") -> SourceModel:
    """Return a scikit-learn model whose pickle is `content`, without MLflow: for pickles that are hostile."""
    top = folder / "source"
    top.mkdir(parents=True)
    (top / "model.pkl").write_bytes(content)
    (top / "requirements.txt").write_text(requirements)
    (top / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"
        "  sklearn:\n    pickled_model: model.pkl\n    serialization_format: pickle\n"
        'signature:\n  inputs: \'[{"type": "double", "name": "x", "required": true}]\'\n'
    )
    return pulled(folder, "sklearn")


class Runs:
    """An object whose unpickling runs a line of Python."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, (self.code,))


def hostile(folder: Path, code: str) -> SourceModel:
    """Return a model whose pickle runs `code` when it is loaded."""
    return by_hand(folder, pickle.dumps(Runs(code)))


def signature_of(data: Any) -> Signature:
    """Return the signature that MLflow infers for a data frame or an array."""
    if hasattr(data, "columns"):
        kinds = {name: str(dtype) for name, dtype in data.dtypes.items()}
        names = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}
        return Signature(
            kind="columns",
            inputs=tuple(
                TensorSpec(name=str(name), datatype=names.get(kind, "BYTES"), shape=(-1, 1))
                for name, kind in kinds.items()
            ),
        )
    kind = tensors.datatype(np.asarray(data).dtype)
    return Signature(kind="tensor", inputs=(TensorSpec(name="input", datatype=kind, shape=(-1, *data.shape[1:])),))


def wrapper(model: Any) -> Any:
    """Return a Python model that does nothing but call another's predict."""
    from mlflow.pyfunc import PythonModel

    class Wrapper(PythonModel):  # made here, so that it is pickled by value
        def __init__(self, inside):  # type: ignore[no-untyped-def]
            self.inside = inside

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads types
            return self.inside.predict(model_input)

    return Wrapper(model)


@dataclass
class Compared:
    """How far a copy is from its original, over generated rows that the original answers."""

    rows: int
    sources: set[str]
    labels: int
    numbers: float
    notes: tuple[str, ...]
    content: bytes
    description: dict[str, Any]


def compared(
    model: Any,
    data: Any,
    folder: Path,
    flavor: Flavor = "sklearn",
    count: int = 400,
    *,
    operators: Operators = "v5",
    to: str = "onnx",
    tool: str = "",
) -> Compared:
    """Convert `model` in this process, and compare every row that the original answers, as the copy can hold it."""
    room, format_ = FLAVORS[flavor], FORMATS[to]
    signature = signature_of(data)
    real = rows.fitted(data[:5], signature, "test")
    if flavor in ("onnx", "pyfunc") or to == "python":
        home = folder / "logged/source"
        if not home.exists():  # each logging has another date and number
            logged(model, data, home.parent, flavor=flavor)
        model = room.load(home)
    else:
        home = folder
        (folder / "MLmodel").write_text(f"flavors:\n  {flavor}: {{}}\n  python_function: {{}}\n")
    native, name = model, flavor
    if flavor == "pyfunc":
        pyfunc.look(model, real, signature)
        name, native = (flavor, model) if to == "python" else pyfunc.unwrapped(model, to)  # type: ignore[assignment]
    found = room.predict(model, real, signature)
    order = Order(
        flavor=name,
        folder=home,
        signature=signature,
        answers=room.answers(model, home),
        operators=operators,
        tool=tool,
        shapes=tensors.specs(found),
    )
    path = folder / f"model{format_.SUFFIX}"
    said = dict(format_.convert(native, order, path))
    format_.check(path)
    hints: Any = said["hints"]
    entered = tuple(TensorSpec(**spec) for spec in said["inputs"])  # type: ignore[attr-defined]
    held = {spec.name: real[spec.name].astype(tensors.NUMPY[spec.datatype]) for spec in entered}
    maker = Maker(replace(signature, inputs=entered), held, hints, 0)
    groups = [*maker.usual(count), *maker.thresholds(), *maker.missing(), *maker.unseen()]
    asked, originals, sources = _answered(room, model, signature, groups)
    numbers, labels = 0.0, 0
    for run in runtimes(format_, path, adapter_of(said, folder)):
        answers = run(asked)
        narrow = Answered(asked, ("",) * tensors.rows(asked), originals, 0.0, ()).undecided(answers)
        for name, array in answers.items():
            assert originals[name].shape == array.shape, name
            if array.dtype.kind == "f":
                over = tensors.errors(originals[name], array)
                numbers = max(numbers, float(np.minimum(*over).max()))
            else:
                labels += int((tensors.disagree(originals[name], array) & ~narrow).sum())
    notes: Any = said["notes"]
    return Compared(tensors.rows(asked), sources, labels, numbers, tuple(notes), path.read_bytes(), said)


def adapter_of(said: Any, folder: Path) -> Path | None:
    """Write the adapter that a conversion describes, if there is one, and return where."""
    if "adapter" not in said:
        return None
    path = folder / adapters.FILE
    path.write_text(json.dumps(said["adapter"]))
    return path


def runtimes(format_: Any, path: Path, adapter: Path | None) -> list[tensors.Predict]:
    """Return the copy run by the format's runtime, and by the second one where the format demands it."""
    second = format_.reference(path) if format_.SECOND else None
    assert second is not None or not format_.SECOND
    return [behind(adapter, run) for run in (format_.load(path), second) if run is not None]


def _answered(
    room: Any, model: Any, signature: Signature, groups: Any
) -> tuple[dict[str, Array], dict[str, Array], set[str]]:
    """Return the groups that the original answers, a row alone where a group makes it raise."""
    inputs, outputs, sources = [], [], set()
    for group in groups:
        whole = range(tensors.rows(group.rows))
        pieces = [np.array(whole)] if group.source != "unseen" else [np.array([row]) for row in whole]
        for piece in pieces:
            asked = tensors.take(group.rows, piece)
            try:
                outputs.append(room.predict(model, asked, signature))
            except (ValueError, AttributeError):
                continue
            inputs.append(asked)
            sources.add(group.source)
    return tensors.stack(inputs), tensors.stack(outputs), sources


def people(count: int = 300) -> tuple[Any, Any, Any]:
    """Return a data frame with text, whole, real, float32 and bool columns and gaps; a class; a number."""
    import pandas as pd

    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "the age": random.integers(18, 80, count),
            "in.come (k)": random.normal(50, 20, count),
            "plan": random.choice(["basic", "pro", "é c"], count),
            "flag": random.random(count) > 0.5,
            "n2": random.normal(0, 1, count).astype("float32"),
        }
    )
    frame.loc[::7, "in.come (k)"] = np.nan
    stays = (frame["the age"] > 40) ^ (frame["plan"] == "pro") ^ (random.random(count) < 0.1)
    number = frame["the age"] * 2 + frame["in.come (k)"].fillna(50) + random.normal(0, 1, count)
    return frame, np.where(stays, "stays", "churns"), number.to_numpy()


def prepared() -> Any:
    """Return the usual preparation of `people`: imputed and scaled numbers, one-hot text, the flag as it is."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer(
        [
            ("numbers", numbers, ["the age", "in.come (k)", "n2"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("flags", "passthrough", ["flag"]),
        ]
    )
