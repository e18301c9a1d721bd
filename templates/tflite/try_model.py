"""Runs the model with LiteRT, the runtime of phones: pip install ai-edge-litert numpy

    python try_model.py              # the golden rows that came with it, compared with what they must give
    python try_model.py ROWS.json    # {"inputs": {"NAME": [...]}}: prints {"outputs": {"NAME": [...]}}
    python try_model.py --lines      # the same, a line in and a line out, until the input ends
    python try_model.py --of int8    # before any of these: the copy in that folder, where there is one
"""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HERE = Path(__file__).resolve().parent
KINDS = {"FP32": "float32", "INT64": "int64", "INT32": "int32", "INT16": "int16", "INT8": "int8", "UINT8": "uint8",
         "BOOL": "bool"}  # fmt: skip


class Model:
    """The model in a folder; `modelrel.json` there says what goes in and out."""

    def __init__(self, folder):
        self.folder = folder
        self.said = json.loads((folder / "modelrel.json").read_text(encoding="utf-8"))
        self._interpreter = Interpreter(model_path=str(folder / self.said["file"]), num_threads=1)
        self._run = self._interpreter.get_signature_runner("serving_default")
        self._adapter = None
        if self.said.get("adapter"):
            sys.path.insert(0, str(HERE))
            import adapters  # the folder beside this file

            self._adapter = adapters.load(folder / self.said["adapter"])

    def answer(self, inputs):
        """Return name -> array for name -> nested lists; a number that is None is a gap."""
        wanted = {spec["name"]: spec for spec in self.said["inputs"]}
        if inputs.keys() != wanted.keys():
            raise ValueError(f"the model takes the inputs {sorted(wanted)}, and was given {sorted(inputs)}")
        given = {}
        for name, spec in wanted.items():
            text = spec["datatype"] == "BYTES"
            values = np.array(inputs[name], object if text else None)
            if values.dtype == object and not text:
                values = np.array(inputs[name], dtype=float)  # None is NaN
            if text and not all(item is None or isinstance(item, str) for item in values.ravel()):
                raise ValueError(f"{name} is text, and was given something else")
            shape = spec["shape"]
            fits = len(values.shape) == len(shape) and all(
                size in (-1, found) for size, found in zip(shape, values.shape)
            )
            if not fits:
                raise ValueError(f"{name} has the shape {list(values.shape)}, and the model takes {shape}")
            given[name] = values if text else entered(values, spec)
        found = self._run(**given) if self._adapter is None else self._behind(given)
        return {spec["name"]: plain(left(found[spec["name"]], spec)) for spec in self.said["outputs"]}

    def _behind(self, given):
        """Return the answers behind the adapter, some rows after others."""
        kinds, found = self._adapter.gives, []
        for at in range(0, len(next(iter(given.values()))), self._adapter.rows):
            numbers = self._adapter({name: values[at : at + self._adapter.rows] for name, values in given.items()})
            fed = {name: np.ascontiguousarray(values, KINDS[kinds[name]]) for name, values in numbers.items()}
            found.append(self._run(**fed))
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def entered(values, spec):
    """Return values as the file takes them; where it takes whole numbers: real = scale * (whole - zero_point)."""
    if "file" not in spec:
        return np.ascontiguousarray(values, KINDS[spec["datatype"]])
    file = spec["file"]
    if np.isnan(values.astype(float)).any():
        raise ValueError(f"{spec['name']} has a gap, and the model takes none: {file['datatype']} holds no NaN")
    limits = np.iinfo(KINDS[file["datatype"]])
    whole = np.rint(values.astype(np.float32).astype(float) / file["scale"]) + file["zero_point"]
    return np.clip(whole, limits.min, limits.max).astype(KINDS[file["datatype"]])


def left(array, spec):
    """Return the real numbers of what the file gives."""
    if "file" not in spec:
        return array
    return ((array.astype(float) - spec["file"]["zero_point"]) * spec["file"]["scale"]).astype(np.float32)


def plain(array):
    """Return nested lists: text as text, NaN and infinities as None."""
    if array.dtype == object:
        return [item.decode() if isinstance(item, bytes) else item for item in array.tolist()]
    if array.dtype.kind == "f":
        return np.where(np.isfinite(array), array.astype(object), None).tolist()
    return array.tolist()


def lines(model):
    """Answer a line for each line; what does not fit is answered with an error."""
    for line in sys.stdin:
        try:
            said = {"outputs": model.answer(json.loads(line)["inputs"])}
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


def golden(model):
    """Compare the golden rows; return the sentence and whether all is well."""
    content = json.loads((model.folder / model.said["golden"]).read_text(encoding="utf-8"))
    found = model.answer(content["inputs"])
    worst, wrong = 0.0, []
    # A number of a quantized model may be the next one on another machine.
    steps = {spec["name"]: spec.get("file", {}).get("scale", 0.0) for spec in model.said["outputs"]}
    for name, expected in content["outputs"].items():
        first, second = np.array(expected, object).ravel(), np.array(found[name], object).ravel()
        if all(isinstance(one, float) or one is None for one in first):
            gap = np.abs(np.array(first, float) - np.array(second, float))
            worst = max(worst, float(np.nanmax(gap, initial=0.0)))
            wrong += [name] if not np.nanmax(gap, initial=0.0) <= 1e-5 + steps[name] else []
        elif (first != second).any():
            wrong.append(name)
    count = len(next(iter(content["inputs"].values())))
    if wrong:
        return f"WRONG: {', '.join(wrong)} of the {count} golden rows", False
    return f"{count} golden rows: right, largest error {worst:.2g}", True


def main():
    """Do what the command line says."""
    words = sys.argv[1:]
    folder = HERE / words[1] if words[:1] == ["--of"] else HERE
    words = words[2:] if words[:1] == ["--of"] else words
    model = Model(folder)
    if words == ["--lines"]:
        lines(model)
    elif words:
        content = json.loads(Path(words[0]).read_text(encoding="utf-8"))
        print(json.dumps({"outputs": model.answer(content["inputs"])}))
    else:
        sentence, right = golden(model)
        print(sentence)
        sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
