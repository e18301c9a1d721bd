"""XGBoost's binary JSON: the same values as its JSON, and one error for what is none."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import xgboost

from modelrel.trees import ubjson


def plain(value: Any) -> Any:
    """Return parsed values as JSON has them."""
    if isinstance(value, ubjson.Typed):
        return ubjson.array(value, value.dtype.newbyteorder("=")).tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    random = np.random.default_rng(0)
    x = np.c_[random.normal(size=(200, 2)), random.integers(0, 9, 200)]
    data = xgboost.DMatrix(x, x[:, 0] + (x[:, 2] == 3), feature_types=["q", "q", "c"], enable_categorical=True)
    return xgboost.train({"max_depth": 4, "booster": "dart", "max_cat_to_onehot": 1}, data, 6)


def test_it_says_what_the_json_of_the_same_model_says(booster: xgboost.Booster) -> None:
    found = plain(ubjson.parsed(bytes(booster.save_raw("ubj"))))
    expected = json.loads(bytes(booster.save_raw("json")))
    trees = [model["learner"]["gradient_booster"]["gbtree"]["model"].pop("trees") for model in (found, expected)]
    for ours, theirs in zip(*trees, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if isinstance(ours[name], list):
                assert np.array_equal(np.float32(ours[name]), np.float32(theirs[name])), name
            else:
                assert ours[name] == theirs[name]
    assert found["learner"]["learner_model_param"] == expected["learner"]["learner_model_param"]
    assert found["learner"]["objective"] == expected["learner"]["objective"]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"{i\x01aT}", {"a": True}),
        (b"{#i\x02i\x01aFi\x01bZ", {"a": False, "b": None}),
        (b"[i\xffU\xffI\x01\x00]", [-1, 255, 256]),
        (b"[#i\x02Si\x02hiCx", ["hi", "x"]),
        (b"D" + struct.pack(">d", 0.1), 0.1),
        (b"[$d#i\x02" + struct.pack(">2f", 1.5, -2), [1.5, -2.0]),
        (b"[$U#i\x00", []),
        (b"{}", {}),
        (b"[]", []),
    ],
)
def test_values_of_each_kind(content: bytes, value: Any) -> None:
    assert plain(ubjson.parsed(content)) == value


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{i", b"{i\x01a", b"[", b"x", b"[$d#i\x05\x00", b"[$d#l\x7f\xff\xff\xff", b"[$di\x02", b"[$d#i\xff",
        b"Si\x09ab", b"Si\x01\xff", b"TT", b"[#l\x7f\xff\xff\xffT", b"L\x00",
    ],
)  # fmt: skip
def test_what_is_no_ubjson_is_one_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="no valid UBJSON"):
        ubjson.parsed(content)


def test_every_cut_of_a_model_is_one_error(booster: xgboost.Booster) -> None:
    whole = bytes(booster.save_raw("ubj"))
    for end in range(0, len(whole), 97):
        with pytest.raises(ValueError, match="no valid UBJSON"):
            ubjson.parsed(whole[:end])
