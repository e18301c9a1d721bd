"""Requests to MLflow's ``/invocations``, good and bad, by what is special about them.

``COLUMNS`` are for the model of five columns in conftest.py, ``TENSORS`` for one [-1, 4] tensor; both are to be
answered as MLflow answers them. ``DIFFERENCES`` are not.
"""

import json

NAMES = ["d", "l", "s", "b", "f"]
ROW = [1.5, 2, "x", True, 0.25]


def split(*rows, columns=NAMES, **more):
    return {"dataframe_split": {"columns": columns, "data": list(rows)} | more}


def records(*rows):
    return {"dataframe_records": [dict(zip(NAMES, row, strict=False)) for row in rows]}


def instances(*rows):
    return {"instances": [dict(zip(NAMES, row, strict=False)) for row in rows]}


def inputs(*rows, **changes):
    return {
        "inputs": {name: list(values) for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)} | changes
    }


def rows_of_inputs(*rows):
    return {"inputs": [dict(zip(NAMES, row, strict=False)) for row in rows]}


COLUMNS = {
    "split": split(ROW),
    "split, two rows": split(ROW, [2, 3, "y", False, 1]),
    "split, columns in another order": split([True, "x", 2, 1.5, 0.25], columns=["b", "s", "l", "d", "f"]),
    "split, an extra column": split([*ROW, 9], columns=[*NAMES, "extra"]),
    "split, an extra column of lists": split([*ROW, [1, [2]]], columns=[*NAMES, "extra"]),
    "split, an index": split(ROW, index=[5]),
    "split, a null index": split(ROW, index=None),
    "split, an unknown key": split(ROW, foo=[5]),
    "split, no columns": {"dataframe_split": {"data": [ROW]}},
    "split, no data": {"dataframe_split": {"columns": NAMES}},
    "split, a column missing": split(ROW[1:], columns=NAMES[1:]),
    "split, a column name too few": split(ROW, columns=NAMES[1:]),
    "split, a column twice": split([*ROW, 1.5], columns=[*NAMES, "d"]),
    "split, a short row": split(ROW, ROW[:4]),
    "split, a short row without an integer": split(ROW, ROW[:1]),
    "split, a long row": split(ROW, [*ROW, 5]),
    "split, the optional column left out of records": {
        "dataframe_split": {"data": [dict(zip(NAMES, ROW, strict=True))]}
    },
    "split, not an object": {"dataframe_split": [ROW]},
    "split, rows of numbers": {"dataframe_split": {"columns": NAMES, "data": [1, 2]}},
    "split, a row that is null": split(ROW, None),
    "split, an integer in a double column": split([1, 2, "x", True, 1]),
    "split, a fraction in a long column": split([1.5, 2.9, "x", True, 0.25]),
    "split, a negative fraction in a long column": split([1.5, -2.9, "x", True, 0.25]),
    "split, a whole float in a long column": split([1.5, 2.0, "x", True, 0.25]),
    "split, null in a double column": split([None, 2, "x", True, 0.25]),
    "split, null in a double column beside numbers": split(ROW, [None, 2, "x", True, 0.25]),
    "split, null in a long column": split([1.5, None, "x", True, 0.25]),
    "split, null in a long column beside numbers": split(ROW, [1.5, None, "x", True, 0.25]),
    "split, null in an optional float column": split([1.5, 2, "x", True, None]),
    "split, a number in a string for a double column": split([" 1.5 ", 2, "x", True, 0.25]),
    "split, nan in a string for a double column": split(["nan", 2, "x", True, 0.25]),
    "split, a number in a string for a long column": split([1.5, "2", "x", True, 0.25]),
    "split, a fraction in a string for a long column": split([1.5, "2.5", "x", True, 0.25]),
    "split, a word in a double column": split(["abc", 2, "x", True, 0.25]),
    "split, a word in a long column": split([1.5, "abc", "x", True, 0.25]),
    "split, a boolean in a double column": split([True, 2, "x", True, 0.25]),
    "split, a boolean among doubles": split([True, 2, "x", True, 0.25], ROW),
    "split, a boolean in a long column": split([1.5, True, "x", True, 0.25]),
    "split, a number in a boolean column": split([1.5, 2, "x", 0, 0.25], [1.5, 2, "x", 3, 0.25]),
    "split, words in a boolean column": split([1.5, 2, "x", "false", 0.25], [1.5, 2, "x", "", 0.25]),
    "split, a list in a double column": split([[1.5], 2, "x", True, 0.25]),
    "split, an object in a double column": split([{"a": 1}, 2, "x", True, 0.25]),
    "split, a double beyond a float column": split([1.5, 2, "x", True, 0.1]),
    "split, an empty string": split([1.5, 2, "", True, 0.25]),
    "records": records(ROW),
    "records, two rows": records(ROW, [2, 3, "y", False, 1]),
    "records, a double missing in one": {
        "dataframe_records": [dict(zip(NAMES, ROW, strict=True)), {"l": 2, "s": "x", "b": False, "f": 1}]
    },
    "records, a long missing in one": {
        "dataframe_records": [dict(zip(NAMES, ROW, strict=True)), {"d": 2, "s": "x", "b": False, "f": 1}]
    },
    "records, an extra key": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)) | {"e": 1}]},
    "records, a number among them": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), 5]},
    "records, null among them": {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), None]},
    "records, lists": {"dataframe_records": [ROW]},
    "records, an object": {"dataframe_records": {"d": [1]}},
    "records, none": {"dataframe_records": []},
    "instances": instances(ROW),
    "instances, two rows": instances(ROW, [2, 3, "y", False, 1]),
    "instances, a key missing in one": instances(ROW, ROW[:3]),
    "instances, columns": {"instances": {name: [value] for name, value in zip(NAMES, ROW, strict=True)}},
    "instances, casts": instances(["1.5", 2.7, 5, 3, "0.25"]),
    "instances, a list for a value": instances([[1.5], 2, "x", True, 0.25]),
    "instances, lists": {"instances": [ROW]},
    "instances, none": {"instances": []},
    "instances, null": {"instances": None},
    "inputs": inputs(ROW),
    "inputs, two rows": inputs(ROW, [2, 3, "y", False, 1]),
    "inputs, single values": {"inputs": dict(zip(NAMES, ROW, strict=True))},
    "inputs, a single value among lists": inputs(ROW, ROW, l=5),
    "inputs, a single value for text": inputs(ROW, ROW, s="y"),
    "inputs, different lengths": inputs(ROW, ROW, l=[1]),
    "inputs, an extra column": inputs(ROW, e=[1]),
    "inputs, an extra column of another length": inputs(ROW, e=[1, 2]),
    "inputs, a column missing": {"inputs": {"d": [1.5], "l": [2], "b": [True]}},
    "inputs, nested numbers": inputs(ROW, d=[[1.5]]),
    "inputs, null in a double column": inputs(ROW, d=[None]),
    "inputs, null in a long column": inputs(ROW, l=[None]),
    "inputs, numbers in strings": inputs(ROW, d=["1.5"], l=[" 1_0"]),
    "inputs, numbers for a string column": inputs(ROW, ROW, s=[1.5, True]),
    "inputs, null for a string column": inputs(ROW, ROW, s=["x", None]),
    "inputs, an integer beyond long": inputs(ROW, l=[2**63]),
    "inputs, a word for a boolean": inputs(ROW, b=["false"]),
    "inputs, rows": rows_of_inputs(ROW, [2, 3, "y", False, 1]),
    "inputs, rows, a double missing in one": {
        "inputs": [dict(zip(NAMES, ROW, strict=True)), {"l": 2, "s": "x", "b": True, "f": 0}]
    },
    "inputs, rows, a long missing in one": {
        "inputs": [dict(zip(NAMES, ROW, strict=True)), {"d": 2, "s": "x", "b": True, "f": 0}]
    },
    "inputs, lists": {"inputs": [ROW]},
    "inputs, a number": {"inputs": 5},
    "inputs, text": {"inputs": "abc"},
    "two forms": inputs(ROW) | {"instances": [1]},
    "no form": {},
    "other keys beside": inputs(ROW) | {"other": 5, "signature_name": "x", "params": None},
    "a chat key beside": inputs(ROW) | {"messages": []},
    "only a chat key": {"prompt": "hello"},
    "a list": [1],
    "a number": 5,
    "null": None,
    "nothing": b"",
    "NaN as a literal": b'{"inputs": {"d": [NaN], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "Infinity as a literal": b'{"inputs": {"d": [-Infinity], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "a number beyond double": b'{"inputs": {"d": [1e400], "l": [2], "s": ["x"], "b": [true], "f": [0.25]}}',
    "a trailing comma": b'{"inputs": {"d": [1,]}}',
    "half a body": b'{"inputs": {"d": [1',
    "not UTF-8": b'{"inputs": {"d": [1], "l": [2], "s": ["\xff"], "b": [true], "f": [0.25]}}',
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(inputs(ROW)).encode(),
    "half a surrogate pair": b'{"inputs": {"d": [1], "l": [2], "s": ["\\ud800"], "b": [true], "f": [0.25]}}',
}

DIFFERENCES = {
    "a number in a string column of a frame": (split([1.5, 2, 5, True, 0.25]), "no text"),
    "null in a string column of a frame": (split([1.5, 2, None, True, 0.25]), "no text"),
    "null in a boolean column of a frame": (split([1.5, 2, "x", None, 0.25]), "no truth"),
    "a boolean missing in a record": (
        {"dataframe_records": [dict(zip(NAMES, ROW, strict=True)), {"d": 2, "l": 3, "s": "x", "f": 1}]},
        "no truth",
    ),
    "a list in a boolean column of a frame": (split([1.5, 2, "x", [False], 0.25]), "no truth"),
    "an empty list for a number": (instances([[], 2, "x", True, 0.25]), "no number"),
    "an integer beyond long in a frame": (split([1.5, 2**63, "x", True, 0.25]), "beyond its datatype"),
    "a float beyond long in a frame": (split([1.5, 1e300, "x", True, 0.25]), "beyond its datatype"),
    "an index longer than the frame": (split(ROW, index=[5, 6]), "another index"),
    "data that is an object of columns": (
        {
            "dataframe_split": {
                "columns": NAMES,
                "data": {name: [value] for name, value in zip(NAMES, ROW, strict=True)},
            }
        },
        "columns for rows",
    ),
    "params that the model does not have": (inputs(ROW) | {"params": {"a": 1}}, "params"),
}
"""What MLflow takes and this server refuses: a request, and what the docstring of ``invocations`` calls the reason."""

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
TENSORS = {
    "inputs": {"inputs": FLOWERS},
    "instances": {"instances": FLOWERS},
    "integers": {"inputs": [[5, 3, 1, 0]]},
    "numbers in strings": {"inputs": [["5.1", "3.5", "1.4", "0.2"]]},
    "words": {"inputs": [["a", "3.5", "1.4", "0.2"]]},
    "null": {"inputs": [[5.1, None, 1.4, 0.2]]},
    "too few features": {"inputs": [[5.1, 3.5]]},
    "one row, not nested": {"inputs": FLOWERS[0]},
    "nested too deep": {"inputs": [FLOWERS]},
    "ragged": {"inputs": [FLOWERS[0], [1]]},
    "no rows": {"inputs": []},
    "an empty row": {"inputs": [[]]},
    "a number": {"inputs": 5},
    "null for inputs": {"inputs": None},
    "another name": {"inputs": {"other": FLOWERS}},
    "rows of objects": {"instances": [{"a": 1}]},
    "split": {"dataframe_split": {"columns": list("abcd"), "data": FLOWERS}},
    "split, no columns": {"dataframe_split": {"data": FLOWERS}},
    "split, one column of lists": {"dataframe_split": {"columns": ["a"], "data": [[row] for row in FLOWERS]}},
    "split, one column of short lists": {"dataframe_split": {"columns": ["a"], "data": [[[1, 2]]]}},
    "split, one column of ragged lists": {"dataframe_split": {"columns": ["a"], "data": [[[1, 2, 3, 4]], [[1]]]}},
    "split, one column of numbers": {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
    "split, three columns": {"dataframe_split": {"columns": list("abc"), "data": [[1, 2, 3]]}},
    "split, null": {"dataframe_split": {"columns": list("abcd"), "data": [[1, 2, 3, None]]}},
    "split, a word": {"dataframe_split": {"columns": list("abcd"), "data": [[1, 2, 3, "a"]]}},
    "split, no rows": {"dataframe_split": {"columns": list("abcd"), "data": []}},
    "records": {"dataframe_records": [dict(zip("abcd", row, strict=True)) for row in FLOWERS]},
    "records, one list": {"dataframe_records": [{"a": row} for row in FLOWERS]},
    "records, lists": {"dataframe_records": FLOWERS},
    "records, none": {"dataframe_records": []},
}
