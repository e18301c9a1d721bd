"""The plain tools that people convert with, in one process of their own: `python outside.py FOLDER`.

FOLDER holds NAME.pkl files, each a dict (tool, model, inputs, options); NAME.onnx or NAME.error is written beside it.
A process of their own, because our converters replace skl2onnx's within a process.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any


def converted(models: dict[str, dict[str, Any]], folder: Path) -> dict[str, Path]:
    """Convert all models; return name -> the file written, or the file with the error."""
    for name, said in models.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(said))
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: next(folder / f"{name}{end}" for end in (".onnx", ".error") if (folder / f"{name}{end}").is_file())
            for name in models}  # fmt: skip


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    _whole_numbers()
    for path in sorted(folder.glob("*.pkl")):
        said = pickle.loads(path.read_bytes())
        try:
            written = _TOOLS[said["tool"]](said)
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; the test says what it expects
            path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
            continue
        path.with_suffix(".onnx").write_bytes(written.SerializeToString())


def _whole_numbers() -> None:
    """Let skl2onnx 1.20 write bools as the whole numbers that protobuf 7 wants: without it no HGB converts at all."""
    import onnx.helper

    make = onnx.helper.make_attribute

    def patched(key: str, value: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(value, list) and value and all(hasattr(item, "__index__") for item in value):
            value = [int(item) for item in value]
        return make(key, value, *rest, **more)

    onnx.helper.make_attribute = patched


def _skl2onnx(said: dict[str, Any]) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types

    kinds = {"float": data_types.FloatTensorType, "double": data_types.DoubleTensorType,
             "text": data_types.StringTensorType}  # fmt: skip
    model = said["model"]
    types = [(name, kinds[kind]([None, width])) for name, kind, width in said["inputs"]]
    options = said.get("options", {"zipmap": False})
    has = "classes_" in dir(model) and options is not None
    chosen = {id(model): options} if has else {}
    # the default locale, en_US.UTF-8, is not on every machine
    parts = [entry[1] for _, step in getattr(model, "steps", ()) for entry in getattr(step, "transformers_", ())]
    chosen |= {id(part): {"locale": "C.UTF-8"} for part in parts if hasattr(part, "idf_")}
    return convert_sklearn(model, initial_types=types, options=chosen, target_opset={"": 18, "ai.onnx.ml": 3})


def _onnxmltools(said: dict[str, Any]) -> Any:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(name, FloatTensorType([None, width])) for name, _, width in said["inputs"]]
    convert = getattr(onnxmltools, f"convert_{said['flavor']}")
    more = {"zipmap": False} if said["flavor"] == "lightgbm" else {}
    return convert(said["model"], initial_types=types, target_opset=15, **more)


def _catboost(said: dict[str, Any]) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        said["model"].save_model(str(path), format="onnx")
        model = onnx.load(path)
    # CatBoost has no option against ZipMap: people take the node off
    graph = model.graph
    maps = next((node for node in graph.node if node.op_type == "ZipMap"), None)
    if maps is not None:
        graph.node.remove(maps)
        for output in graph.output:
            if output.name == maps.output[0]:
                shape = ["N", None]
                output.CopyFrom(onnx.helper.make_tensor_value_info(maps.input[0], onnx.TensorProto.FLOAT, shape))
    return model


_TOOLS = {"skl2onnx": _skl2onnx, "onnxmltools": _onnxmltools, "catboost": _catboost}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
