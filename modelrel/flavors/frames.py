"""Named arrays as the thing a Python model wants: a data frame with the signature's columns, or one array."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelrel.errors import Refused
from modelrel.tensors import NUMPY, Array, Tensors
from modelrel.values import Signature


def given(tensors: Tensors, signature: Signature) -> Any:
    """Return a pandas DataFrame (kind columns; shapes (N, 1)) or a NumPy array (kind tensor).

    Columns have the dtypes that MLflow's schema enforcement hands to a model; a missing text is what pandas
    makes of it (NaN in its own text dtype). Raises `Refused` for a signature of several tensors.
    """
    if signature.kind == "tensor":
        if len(signature.inputs) != 1:
            raise Refused(
                f"the signature has {len(signature.inputs)} tensors, and this model takes one",
                "Log the model with a signature of one tensor, or of columns.",
            )
        spec = signature.inputs[0]
        return np.asarray(tensors[spec.name], NUMPY[spec.datatype])
    import pandas as pd

    series = {}
    for spec in signature.inputs:
        column = tensors[spec.name].reshape(-1)
        if spec.datatype == "BYTES":
            # pandas 3 gives text its own dtype whatever the rows are; before, it was object.
            kind = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
            series[spec.name] = pd.Series(column.tolist(), dtype=kind)
        else:
            series[spec.name] = pd.Series(column.astype(NUMPY[spec.datatype]))
    return pd.DataFrame(series)


def answered(value: Any) -> Array:
    """Return what a model answered as one array: frames, sparse matrices and text included; numbers keep theirs."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    array = np.asarray(value)
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind == "O":
        return array if all(isinstance(item, str) for item in array.ravel()) else np.asarray(array.tolist())
    return array
