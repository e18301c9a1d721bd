"""How fast, small and quick models are converted, beside skl2onnx and onnxmltools, each in a process of its own.

    python bench/convert.py            # all of it, some minutes
    python bench/convert.py --trees 50 # smaller, for a look

Seconds are of the conversion alone (the model is loaded before, the file written within); memory is the peak of the
process less what it held before. Answers are checked: a quick wrong copy counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "convert"
FEATURES = 20
ROWS = 4300  # a regression tree on these has some 5,400 nodes


def data() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    return x, x[:, 0] * x[:, 1] + random.normal(size=ROWS)


def train(kind: str, trees: int) -> Any:
    x, y = data()
    if kind == "forest":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(trees, n_jobs=-1, random_state=0).fit(x, y)
    if kind == "xgboost":
        import xgboost

        return xgboost.XGBClassifier(n_estimators=trees, max_depth=6).fit(x, (y > 0).astype(int))
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=trees, num_leaves=63, verbose=-1).fit(x, (y > 0).astype(int))


def resident() -> int:
    """Return the bytes that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def by_modelrel(kind: str, model: Any, path: Path) -> None:
    from modelrel.flavors import FLAVORS
    from modelrel.formats import FORMATS, Order
    from modelrel.values import Signature, TensorSpec

    flavor = "sklearn" if kind == "forest" else kind
    signature = Signature(kind="tensor", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, FEATURES)),))
    (path.parent / "MLmodel").write_text(f"flavors:\n  {flavor}: {{}}\n  python_function: {{}}\n")
    answers = FLAVORS[flavor].answers(model, path.parent)
    FORMATS["onnx"].convert(model, Order(flavor=flavor, signature=signature, answers=answers), path)


def by_peer(kind: str, model: Any, path: Path) -> None:
    if kind == "forest":
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType

        copy = convert_sklearn(model, initial_types=[("x", FloatTensorType([None, FEATURES]))])
    else:
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType

        write = getattr(onnxmltools, f"convert_{kind}")
        copy = write(model, initial_types=[("x", FloatTensorType([None, FEATURES]))])
    path.write_bytes(copy.SerializeToString())


def measured(kind: str, tool: str, pickled: Path) -> dict[str, Any]:
    """Convert in this process; return seconds, bytes of extra memory and of the file, and the microseconds a row."""
    import onnxruntime

    model = pickle.loads(pickled.read_bytes())
    path = pickled.with_suffix(f".{tool}.onnx")
    convert = by_modelrel if tool == "modelrel" else by_peer
    small = train("forest" if kind == "forest" else kind, 2)
    convert(kind, small, path)  # imports, and whatever a first time costs
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.perf_counter()
    convert(kind, model, path)
    seconds = time.perf_counter() - start
    peak = int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x, _ = data()
    rows = x[:1000]
    name = session.get_outputs()[0].name

    def timed(work: Any) -> float:
        best = 1e9
        for _ in range(3):
            began = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - began)
        return best / len(rows) * 1e6

    if hasattr(model, "n_jobs"):
        model.n_jobs = 1
    found = np.asarray(session.run([name], {session.get_inputs()[0].name: rows})[0]).ravel()
    expected = np.asarray(model.predict(rows)).ravel()
    wrong = int((~np.isclose(found.astype(float), expected.astype(float), rtol=1e-5, atol=1e-5)).sum())
    return {
        "seconds": seconds,
        "memory": peak * 1024 - before,
        "file": path.stat().st_size,
        "wrong": wrong,
        "row_us": timed(lambda: session.run([name], {session.get_inputs()[0].name: rows})),
        "original_row_us": timed(lambda: model.predict(rows)),
    }


def nodes(kind: str, model: Any) -> int:
    if kind == "forest":
        return sum(one.tree_.node_count for one in model.estimators_)
    if kind == "xgboost":
        return len(model.get_booster().trees_to_dataframe())
    return sum(2 * one["num_leaves"] - 1 for one in model.booster_.dump_model()["tree_info"])


def compare(kind: str, trees: int) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    pickled = RESULTS / f"{kind}-{trees}.pickle"
    if not pickled.exists():
        pickled.write_bytes(pickle.dumps(train(kind, trees)))
    peer = "skl2onnx" if kind == "forest" else "onnxmltools"
    found = {}
    for tool in (peer, "modelrel"):
        command = [sys.executable, __file__, "--one", kind, tool, str(pickled)]
        found[tool] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    ours, theirs = found["modelrel"], found[peer]
    print(f"{kind}, {trees} trees, {nodes(kind, pickle.loads(pickled.read_bytes())):,} nodes")
    for tool, said in found.items():
        print(
            f"  {tool:12} {said['seconds']:7.2f} s  {said['memory'] / 1e6:7,.0f} MB more  {said['file'] / 1e6:6.1f} MB"
            f"  {said['row_us']:7.1f} us a row (original {said['original_row_us']:.1f})  {said['wrong']} of 1000 wrong"
        )
    print(
        f"  modelrel is {theirs['seconds'] / ours['seconds']:.1f} times as fast,"
        f" with {ours['memory'] / theirs['memory']:.2f} of the memory, {ours['file'] / theirs['file']:.2f} of the file,"
        f" {theirs['row_us'] / ours['row_us']:.2f} times the inference speed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "TOOL", "PICKLE"))
    given = parser.parse_args()
    if given.one:
        kind, tool, pickled = given.one
        print(json.dumps(measured(kind, tool, Path(pickled))))
        return
    for kind in ("forest", "xgboost", "lightgbm"):
        compare(kind, given.trees)


if __name__ == "__main__":
    main()
