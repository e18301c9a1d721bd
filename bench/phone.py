"""How long one row takes in LiteRT, beside onnxruntime and the original library: trees of 50 rounds, depth 6.

    python bench/phone.py

Each on one thread, best of many runs, the same rows; the copies are converted here and checked on 1,000 rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 20
RUNS = 2000


def best(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the microseconds of the quickest run."""
    found = 1e9
    for _ in range(runs):
        start = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - start)
    return found * 1e6


def converted(flavor: str, model: Any, rows: Any, to: str, folder: Path) -> Path:
    from modelrel.flavors import FLAVORS
    from modelrel.formats import FORMATS, Order
    from modelrel.values import Signature, TensorSpec

    (folder / "MLmodel").write_text(f"flavors:\n  {flavor}: {{}}\n  python_function: {{}}\n")
    signature = Signature(kind="tensor", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, FEATURES)),))
    answers = FLAVORS[flavor].answers(model, folder)
    path = folder / f"model{FORMATS[to].SUFFIX}"
    FORMATS[to].convert(model, Order(flavor=flavor, signature=signature, answers=answers), path)
    found = FORMATS[to].load(path)({"x": rows[:1000]})["label"]
    assert (found == np.asarray(model.predict(rows[:1000])).ravel()).all(), f"{to} answers otherwise"
    return path


def measured(name: str, flavor: str, model: Any, rows: Any) -> None:
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    one = np.ascontiguousarray(rows[:1])
    with tempfile.TemporaryDirectory() as work:
        phone = converted(flavor, model, rows, "tflite", Path(work))
        other = converted(flavor, model, rows, "onnx", Path(work))
        interpreter = Interpreter(model_path=str(phone), num_threads=1)
        place = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(place, list(one.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, one)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(other), options, providers=["CPUExecutionProvider"])
        lite = best(interpreter.invoke)
        runtime = best(lambda: session.run(None, {"x": one}))
        original = best(lambda: model.predict(one), 200)
        size = phone.stat().st_size
    print(
        f"{name}: LiteRT {lite:.1f} us, onnxruntime {runtime:.1f} us, original {original:.1f} us a row; "
        f"LiteRT is {runtime / lite:.1f} and {original / lite:.0f} times as fast; {size / 1e3:.0f} kB"
    )


def main() -> None:
    import xgboost
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(0)
    rows = random.normal(size=(3000, FEATURES)).astype(np.float32)
    target = (rows[:, 0] * rows[:, 1] > 0).astype(int)
    forest = RandomForestClassifier(50, max_depth=6, random_state=0, n_jobs=1).fit(rows, target)
    measured("forest, 50 trees of depth 6", "sklearn", forest, rows)
    boosted = xgboost.XGBClassifier(n_estimators=50, max_depth=6, n_jobs=1).fit(rows, target)
    measured("xgboost, 50 trees of depth 6", "xgboost", boosted, rows)


if __name__ == "__main__":
    main()
