"""All estimators of scikit-learn that predict or transform: each equal to the original, or refused with a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import estimators, sweep

ROOT = Path(__file__).parents[2]
WIDTHS = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


@WIDTHS
@pytest.mark.parametrize("name", sorted(set(estimators.KINDS) - set(estimators.REFUSED)))
def test_an_estimator_gives_what_the_original_gives(name: str, dtype: Any, tmp_path: Path) -> None:
    found = sweep.swept(name, dtype, tmp_path)
    assert (found.kind, found.said) == ("equal", "")


@WIDTHS
@pytest.mark.parametrize("name", sorted(estimators.REFUSED))
def test_an_estimator_without_exact_copy_is_refused_by_name_with_the_reason(
    name: str, dtype: Any, tmp_path: Path
) -> None:
    found = sweep.swept(name, dtype, tmp_path)
    assert (found.kind, name in found.said, estimators.REFUSED[name] in found.said) == ("refused", True, True), found


def test_at_least_150_estimators_are_equal() -> None:
    assert len(set(estimators.KINDS) - set(estimators.REFUSED)) >= 150


def test_readme_names_the_estimators_that_are_refused() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    (listed,) = re.findall(r"Refused, with the reason: (.*?)\. ", text)
    assert re.findall(r"`(\w+)`", listed) == sorted(estimators.REFUSED)


def test_readme_says_how_many_estimators_are_equal() -> None:
    equal, whole = len(estimators.KINDS) - len(estimators.REFUSED), len(estimators.KINDS)
    assert f"{equal} of scikit-learn's {whole} estimators" in " ".join((ROOT / "README.md").read_text().split())
