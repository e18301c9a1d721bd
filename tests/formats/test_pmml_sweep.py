"""All estimators of scikit-learn as PMML: equal in both scorers, or refused by name; none silently wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats.estimators import KINDS, PMML
from tests.formats.pmml import java, valid
from tests.formats.sweep import swept


@java
@pytest.mark.parametrize("name", sorted(PMML))
def test_it_is_equal_in_both_scorers(name: str, tmp_path: Path) -> None:
    found = swept(name, np.float64, tmp_path, "pmml")
    assert (found.kind, found.said) == ("equal", "")
    valid((tmp_path / "model.pmml").read_bytes())


@pytest.mark.parametrize("name", sorted(KINDS.keys() - PMML))
def test_it_is_refused_by_name(name: str, tmp_path: Path) -> None:
    found = swept(name, np.float64, tmp_path, "pmml")
    assert found.kind == "refused", found
    # what takes pictures is refused for their shape
    assert (name if name != "PatchExtractor" else "has the shape") in found.said


def test_readme_says_how_many_become_pmml() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split())
    assert f"{len(PMML)} of scikit-learn's {len(KINDS)} become PMML" in text
