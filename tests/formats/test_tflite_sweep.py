"""All estimators of scikit-learn as TFLite: equal within float32, or refused by name; none silently wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats.estimators import KINDS, NARROW, NOT_TFLITE, REFUSED
from tests.formats.sweep import swept


@pytest.mark.parametrize("name", sorted(KINDS))
def test_it_is_equal_or_refused_by_name(name: str, tmp_path: Path) -> None:
    found = swept(name, np.float32, tmp_path, "tflite")
    reason = NOT_TFLITE.get(name, REFUSED.get(name))
    if reason:
        assert found.kind == "refused", found
        assert reason in found.said
    elif name in NARROW:
        assert found.kind == "wrong", found  # its rows are refused by `verify`, which is the guard
        assert "rows, first" in found.said
    else:
        assert found.kind == "equal", found


def test_most_of_them_are_equal() -> None:
    equal = len(KINDS) - len(REFUSED.keys() | NOT_TFLITE.keys() | NARROW)
    assert equal >= 150
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split())
    assert f"{equal} of scikit-learn's {len(KINDS)} are equal within the tolerance" in text
