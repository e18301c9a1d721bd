"""PMML copies in tests: through both scorers, and against the schema of PMML 4.4."""

from __future__ import annotations

import functools
import importlib.util
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.models import Compared, compared

java = pytest.mark.skipif(shutil.which("java") is None, reason="no java here: apt-get install default-jre-headless")


@functools.cache
def schema() -> Any:
    """The schema that JPMML's model library (BSD licence) carries, read where jpmml-evaluator brings it."""
    from lxml import etree

    found = importlib.util.find_spec("jpmml_evaluator")
    assert found is not None
    assert found.origin is not None
    (jar,) = (Path(found.origin).parent / "dependencies").glob("pmml-model-1*.jar")
    with zipfile.ZipFile(jar) as packed:
        return etree.XMLSchema(etree.parse(io.BytesIO(packed.read("pmml.xsd"))))


def valid(content: bytes) -> None:
    """Raise where a file is not valid PMML 4.4."""
    from lxml import etree

    schema().assertValid(etree.parse(io.BytesIO(content), etree.XMLParser(huge_tree=True)))


def twice(model: Any, data: Any, folder: Path, flavor: Any = "sklearn", count: int = 60) -> Compared:
    """Convert, validate against the schema, and compare with what both scorers answer."""
    found = compared(model, data, folder, flavor, count, to="pmml")
    valid(found.content)
    return found
