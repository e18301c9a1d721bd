"""Tables as Parquet for the model of five columns in conftest.py, by what is special about them.

``PARQUET`` are to be answered as MLflow answers them, ``PARQUET_DIFFERENCES`` not.
"""

import io

import numpy as np
import pandas as pd

from tests.serving.csv_bodies import ROW, table


def parquet(*columns, **more):
    """Write columns, (name, values, dtype) each, as pandas does."""
    frame = pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, values, dtype in columns} | more)
    written = io.BytesIO()
    frame.to_parquet(written)
    return written.getvalue()


def five(**changes):
    """Write a table of two good rows, but for some columns."""
    good = {
        "d": ([1.5, 2], "f8"),
        "l": ([2, 3], "i8"),
        "s": (["x", "y"], None),
        "b": ([True, False], "?"),
        "f": ([0, 1], "f4"),
    }
    return parquet(*((name, *values) for name, values in (good | changes).items() if values is not None))


def with_index(name):
    written = io.BytesIO()
    pd.read_parquet(io.BytesIO(five())).set_index(name).to_parquet(written)
    return written.getvalue()


PARQUET = {
    "as the signature has it": five(),
    "float for double": five(d=([1.5, 2], "f4")),
    "half for double": five(d=([1.5, 2], "f2")),
    "double for float": five(f=([1.5, 2], "f8")),
    "long for double": five(d=([1, 2], "i8")),
    "zeros and ones for double": five(d=([1, 0], "i8")),
    "zeros and ones for float": five(f=([1, 0], "i8")),
    "integer for double": five(d=([1, 2], "i4")),
    "integer for float": five(f=([1, 0], "i4")),
    "unsigned integer for double": five(d=([1, 2], "u4")),
    "integer for long": five(l=([1, 2], "i4")),
    "unsigned integer for long": five(l=([1, 2], "u4")),
    "unsigned long for long": five(l=([1, 2], "u8")),
    "double for long": five(l=([1.0, 2.0], "f8")),
    "boolean for long": five(l=([True, False], "?")),
    "boolean for double": five(d=([True, False], "?")),
    "long for boolean": five(b=([1, 0], "i8")),
    "a number for a string": five(s=([1, 2], "i8")),
    "categories for a string": five(s=(["x", "y"], "category")),
    "NaN for double": five(d=([np.nan, 2], "f8")),
    "NaN for the optional float": five(f=([np.nan, 2], "f4")),
    "a nullable long": five(l=([1, 2], "Int64")),
    "a nullable long with null": five(l=([1, None], "Int64")),
    "a nullable boolean": five(b=([True, False], "boolean")),
    "a nullable double with null": five(d=([1, None], "Float64")),
    "a nullable long with null for double": five(d=([1, None], "Int64")),
    "a nullable integer with null for double": five(d=([1, None], "Int32")),
    "dates for double": five(d=(["2020-01-01", "2020-01-02"], "datetime64[ns]")),
    "the optional column missing": five(f=None),
    "a column missing": five(l=None),
    "an extra column": five(e=([[1], [2]], None)),
    "lists for double": five(d=([[1.0], [2.0]], None)),
    "a column as the index": with_index("l"),
    "the optional column as the index": with_index("f"),
    "nothing": b"",
    "no Parquet": b"PAR1 and no more",
    "half a file": five()[: len(five()) // 2],
    "CSV": table(ROW).encode(),
}

PARQUET_DIFFERENCES = {
    "null for a string": (five(s=(["x", None], None)), "no text"),
    "null for a boolean": (five(b=([True, None], object)), "no truth"),
    "no rows": (five(d=([], "f8"), l=([], "i8"), s=([], "str"), b=([], "?"), f=([], "f4")), "no rows"),
}
"""As ``DIFFERENCES`` of tables.py."""
