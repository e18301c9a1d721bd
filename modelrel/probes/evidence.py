"""What a verification leaves behind: golden rows, the manifest that servers read, and a refused report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Final

import numpy as np

from modelrel import __version__, archive, records, served, tensors
from modelrel.measured import OutputParity
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import ConvertedModel, File, TensorSpec

REFUSED: Final = "ParityReport.refused.json"
MANIFEST: Final = "modelrel.json"
GOLDEN: Final = "golden.json"
SCHEMA: Final = 1

_GOLDEN_ROWS: Final = 8
_ORDER: Final = ("example", "permuted", "jittered", "data", "ranged")
"""Where golden rows come from, the most typical first."""

_SHOWN: Final = 300
_LONG_S: Final = 0.2


def golden(converted: ConvertedModel, inputs: Tensors, origin: Sequence[str], copy: Predict) -> File:
    """Write about eight typical rows as they are served: `{"inputs": {name: [...]}, "outputs": {...}}`."""
    order = {source: place for place, source in enumerate(_ORDER)}
    whole = _complete(inputs, len(origin))
    candidates = [row for row, source in enumerate(origin) if source in order]
    # Half of them are examples at most: one logged row repeated says little.
    examples = [row for row in candidates if origin[row] == "example"][: _GOLDEN_ROWS // 2]
    others = [row for row in candidates if origin[row] != "example"]
    others.sort(key=lambda row: (not whole[row], order[origin[row]], row))
    picked = np.array((examples + others)[:_GOLDEN_ROWS] or [0])
    chosen = tensors.take(inputs, picked)
    sent = served.rows(converted, chosen)
    content = {
        "inputs": {name: tensors.plain(array) for name, array in sent.items()},
        "outputs": {name: tensors.plain(array) for name, array in served.dressed(converted, copy)(sent).items()},
    }
    return _written(converted, GOLDEN, content)


def manifest(converted: ConvertedModel, parities: Sequence[OutputParity], rows: int) -> File:
    """Write what a server needs to know; it depends on the model and the proof alone (no times in it)."""
    source, signature = converted.source, converted.signature
    content = {
        "schema": SCHEMA,
        "name": source.name,
        "version": source.version,
        **({"signature": signature.name} if signature.name else {}),
        "format": converted.format,
        "file": converted.path.name,
        **({"adapter": converted.adapter_path.name} if converted.adapter_path else {}),
        "kind": signature.kind,
        "inputs": [
            _plain_spec(spec) | {"required": spec.required} | _units(converted, spec)
            for spec in served.inputs(converted)
        ],
        "outputs": [_plain_spec(spec) | _units(converted, spec) for spec in served.outputs(converted)],
        **served.manifest(converted),
        "predict": served.predict(converted),
        "classes": list(converted.classes),
        "golden": GOLDEN,
        "metadata": {
            "uri": source.uri,
            "run_id": source.run_id,
            "flavor": source.flavor,
            "source_digest": source.digest,
            "model_sha256": converted.file.sha256,
            "modelrel_version": __version__,
            "estimator": converted.estimator,
            "tools": dict(sorted(converted.tools.items())),
            **({"quantize": converted.quantize} if converted.quantize else {}),
            "parity": {
                "rows": rows,
                "max_abs_error": max((parity.max_abs_error for parity in parities), default=0.0),
                "disagreements": sum(parity.disagreements for parity in parities),
            },
        },
    }
    return _written(converted, MANIFEST, content)


def refused(converted: ConvertedModel, measured: Mapping[str, Any], sentences: Sequence[str]) -> File:
    """Write everything that was measured about a copy that did not pass."""
    content = {
        "refused": list(sentences),
        "model": converted.source.label,
        "source_digest": converted.source.digest,
        "model_sha256": converted.file.sha256,
        **{name: _finite(value) for name, value in measured.items()},
    }
    path = converted.path.parent / REFUSED
    archive.write(path, records.seal(content))
    return archive.describe(path, converted.folder)


def single(value: Any) -> Any:
    """Return one row of an array as JSON data: a column's (1,) as its one value, NaN as None."""
    array = np.asarray(value)
    if array.dtype == object and array.shape == ():
        return value
    if array.size == 1:
        array = array.reshape(())
    return _finite(array.tolist())


def short(value: Any) -> str:
    """Return a value as text of bounded length, for a sentence."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def seconds(work: Callable[[], object], runs: int) -> float:
    """Return the wall seconds of the quickest of `runs` runs; one that takes long is not run again."""
    best = math.inf
    for _ in range(runs):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if best > _LONG_S:
            break
    return best


def _complete(inputs: Tensors, count: int) -> Array:
    """Return which rows have no gap."""
    whole = np.ones(count, np.bool_)
    for array in inputs.values():
        flat = array.reshape(count, -1)
        if flat.dtype.kind == "f":
            whole &= np.isfinite(flat).all(axis=1)
        elif flat.dtype == object:
            whole &= np.array([all(item is not None for item in row) for row in flat], np.bool_)
    return whole


def _plain_spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _units(converted: ConvertedModel, spec: TensorSpec) -> dict[str, Any]:
    """Return how the file itself holds a tensor, where that is not as the spec says."""
    for unit in converted.units:
        if unit.name == spec.name:
            return {"file": {"datatype": unit.datatype, "scale": unit.scale, "zero_point": unit.zero_point}}
    return {}


def _finite(value: Any) -> Any:
    """Return JSON data without NaN (None) and infinities (text), which JSON does not have."""
    if is_dataclass(value) and not isinstance(value, type):
        return _finite(asdict(value))
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _written(converted: ConvertedModel, name: str, content: Mapping[str, Any]) -> File:
    path = converted.path.parent / name
    # Golden rows are for machines, and a hundred columns in one line each would be a long file.
    indent = None if name == GOLDEN else 2
    archive.write(path, (json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return archive.describe(path, converted.folder)
