"""Rows from a file - csv, parquet, json in any of MLflow's forms, npy, npz - as named arrays by signature."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from modelrel import archive, tensors
from modelrel.errors import Invalid
from modelrel.tensors import NUMPY, Array
from modelrel.values import Signature, SourceModel, TensorSpec

if TYPE_CHECKING:
    import pandas as pd

_MOST_CELLS: Final = 10_000_000
_FORMS = "records, split, MLflow's dataframe_split, dataframe_records, inputs or instances"


def read(path: Path, signature: Signature, label: str = "") -> dict[str, Array]:
    """Return the rows of a file: one array per input of the signature, columns as (N, 1).

    More columns than the signature has are left out; `label` names one that is none of a tensor's. Raises `Invalid`
    where the file cannot be read, lacks a column, or holds values of another type.
    """
    content = _opened(path, signature)
    if label:
        content = _parted(content, label, path)[0]
    found = fitted(content, signature, path.name)
    if not tensors.rows(found):
        raise Invalid(f"{path.name} holds no rows", "Give a file with at least one row.")
    return found


def labels(path: Path, signature: Signature, label: str) -> Array:
    """Return the column `label` of a file, (N,): numbers, truth values, or text (dtype object).

    Raises `Invalid` where the file has no such column, or a row of it is empty.
    """
    array = np.asarray(_parted(_opened(path, signature), label, path)[1])
    array = array.reshape(len(array), -1)
    if array.shape[1] != 1:
        raise Invalid(f"{label!r} of {path.name} is not one value a row", "Name a column of single values.")
    listed = array[:, 0].tolist()
    empty = [row for row, value in enumerate(listed) if value is None or value != value]  # noqa: PLR0124 - NaN
    if empty:
        raise Invalid(f"{label!r} of {path.name} is empty in row {empty[0]}", "Leave such rows out.")
    if any(isinstance(value, str) for value in listed):
        return tensors.text([str(value) for value in listed], (len(listed),))
    return np.asarray(listed)


def _parted(content: Any, label: str, path: Path) -> tuple[Any, Any]:
    """Return what a file holds without a column, and that column."""
    names = [str(name) for name in getattr(content, "columns", content if isinstance(content, Mapping) else ())]
    if label not in names:
        known = f"It has {', '.join(map(repr, names[:20]))}." if names else "It has no columns by name."
        raise Invalid(f"{path.name} has no column {label!r}", known)
    if isinstance(content, Mapping):
        return {name: value for name, value in content.items() if name != label}, content[label]
    content = content.rename(columns=str)
    return content.drop(columns=label), content[label]


def _opened(path: Path, signature: Signature) -> Any:
    try:
        return _content(path, signature)
    except FileNotFoundError as error:
        raise Invalid(f"there is no file {path}", "Check the path.") from error
    except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:200]
        raise Invalid(
            f"{path.name} cannot be read: {said}", f"It must be csv, parquet, json ({_FORMS}), npy or npz."
        ) from error


def example(source: SourceModel) -> dict[str, Array] | None:
    """Return the rows of the logged input example, or None where none was logged; raises as `read` does."""
    if not source.input_example or source.signature is None:
        return None
    return read(archive.within(source.model_dir, source.input_example), source.signature)


def fitted(content: Any, signature: Signature, where: str) -> dict[str, Array]:
    """Return a data frame, a mapping of arrays, or one array, as the inputs of the signature.

    Raises `Invalid`, naming what is missing or of another type.
    """
    if signature.kind == "columns":
        return _columns(content, signature, where)
    found = {}
    for spec in signature.inputs:
        if isinstance(content, Mapping):
            if spec.name not in content and len(content) == len(signature.inputs) == 1:
                content = {spec.name: next(iter(content.values()))}
            if spec.name not in content:
                raise Invalid(f"{where} has no tensor {spec.name!r}", f"It has {', '.join(map(repr, content))}.")
            value = content[spec.name]
        else:
            value = content
        found[spec.name] = _tensor(value, spec, where)
    return found


def _content(path: Path, signature: Signature) -> Any:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if suffix == ".npz" else loaded
    if suffix in (".csv", ".parquet"):
        import pandas as pd

        if suffix == ".parquet":
            return pd.read_parquet(path)
        words = {spec.name: str for spec in signature.inputs if spec.datatype == "BYTES"}
        return pd.read_csv(path, dtype=words)
    if suffix == ".json":
        return _json(json.loads(path.read_text(encoding="utf-8")))
    raise ValueError(f"nothing is known about files that end in {suffix or 'nothing'}")


def _json(content: Any) -> Any:
    """Return what a JSON document holds: a frame, a mapping of arrays, or nested lists."""
    import pandas as pd

    if isinstance(content, Mapping):
        for key in ("dataframe_split", "dataframe_records", "inputs", "instances"):
            if key in content:
                return _json(content[key])
        if set(content) == {"data", "indices", "indptr", "shape"}:
            return _sparse(content)
        if {"columns", "data"} <= set(content):
            return pd.DataFrame(_plain(content["data"]), columns=content["columns"])
        return dict(content)
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        return pd.DataFrame({name: _plain([row.get(name) for row in content]) for name in content[0]})
    if isinstance(content, list):
        return content
    raise ValueError(f"a {type(content).__name__} is not rows")


def _sparse(content: Mapping[str, Any]) -> Array:
    """Return the dense form of a sparse matrix, as MLflow writes it: it does not say whether by rows or by columns."""
    height, width = (int(size) for size in content["shape"])
    if not 0 < height * width <= _MOST_CELLS:
        raise ValueError(f"a sparse matrix of {height} x {width} is not rows to ask")
    ends = np.asarray(content["indptr"], np.int64)
    lines = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    places = np.asarray(content["indices"], np.int64)
    dense = np.zeros((height, width))
    try:  # numpy checks every index, scipy does not
        where = (lines, places) if len(ends) == height + 1 else (places, lines)
        dense[where] = np.asarray(content["data"], np.float64)
    except IndexError as error:
        raise ValueError("a sparse matrix with entries outside of it") from error
    return dense


def _plain(values: list[Any]) -> Array:
    """Return JSON values untouched by any guess: an array of Python objects."""
    width = len(values[0]) if values and isinstance(values[0], list) else 0
    array = np.empty((len(values), width) if width else len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def _flat(values: Any) -> list[Any]:
    """Return a column given as [1, 2], as [[1], [2]], or as an array."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [item[0] if isinstance(item, list) and len(item) == 1 else item for item in listed]


def _columns(content: Any, signature: Signature, where: str) -> dict[str, Array]:
    import pandas as pd

    names = [spec.name for spec in signature.inputs]
    if isinstance(content, Mapping):
        content = pd.DataFrame({name: _plain(_flat(value)) for name, value in content.items()})
    if not isinstance(content, pd.DataFrame):
        array = np.asarray(_plain(content) if isinstance(content, list) else content)
        if array.ndim == 1 and len(names) == 1:
            array = array[:, None]  # MLflow writes rows of one column as a plain list
        if array.ndim != 2 or array.shape[1] != len(names):
            raise Invalid(f"{where} is not rows of {len(names)} values", f"The columns are {', '.join(names)}.")
        content = pd.DataFrame(array, columns=names)
    content = content.rename(columns=str)
    missing = [spec.name for spec in signature.inputs if spec.name not in content and spec.required]
    if missing:
        raise Invalid(
            f"{where} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}",
            f"It has {', '.join(map(repr, content.columns))}.",
        )
    return {spec.name: _column(content, spec, where) for spec in signature.inputs}


def _column(frame: pd.DataFrame, spec: TensorSpec, where: str) -> Array:
    """Return one column as (N, 1) in its datatype."""
    import pandas as pd

    if spec.name not in frame:
        values: list[Any] = [None] * len(frame)
    else:
        column = frame[spec.name]
        values = [None if gone else value for value, gone in zip(column.tolist(), pd.isna(column), strict=True)]
    return converted(values, spec, where).reshape(-1, 1)


def converted(values: Sequence[Any], spec: TensorSpec, where: str) -> Array:
    """Return Python values (None: missing) as one array of the spec's datatype; raises `Invalid` naming a misfit."""
    kind = NUMPY[spec.datatype].kind
    accepted: tuple[type, ...] = {"O": (str,), "b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[kind]
    for row, value in enumerate(values):
        if value is None and kind in "Of":
            continue
        fits = isinstance(value, accepted) and (kind == "b" or not isinstance(value, bool))
        whole = kind in "iu" and isinstance(value, float) and value.is_integer()
        if not (fits or whole):
            raise Invalid(
                f"{where}, row {row}: {spec.name!r} is {value!r}, and the signature says {spec.datatype}",
                "Give every row a value of the signature's type.",
            )
    if kind == "O":
        return tensors.text(list(values), (len(values),))
    plain = [np.nan if value is None else value for value in values]
    try:
        return np.array(plain, NUMPY[spec.datatype])
    except OverflowError as error:
        raise Invalid(f"{where}: {spec.name!r} holds a number beyond {spec.datatype}", "Check the values.") from error


def _tensor(value: Any, spec: TensorSpec, where: str) -> Array:
    """Return one tensor in the spec's datatype and shape."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        # A file with more columns than the tensor has holds a label; which one nobody can tell but by number.
        numbers = value.select_dtypes("number") if spec.datatype != "BYTES" else value
        value = numbers.to_numpy()
    try:
        array = np.asarray(value)
        array = array.astype(object) if spec.datatype == "BYTES" else array.astype(NUMPY[spec.datatype])
    except (ValueError, TypeError) as error:
        raise Invalid(f"{where} does not hold {spec.datatype} for {spec.name!r}", "Check the values.") from error
    fits = array.ndim == len(spec.shape) and all(
        want < 0 or have == want for have, want in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise Invalid(
            f"{where} has the shape {list(array.shape)} for {spec.name!r}, and the signature says {list(spec.shape)}",
            "Give rows of the signature's shape.",
        )
    return array
