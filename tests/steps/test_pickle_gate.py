"""Before a model is loaded, what its files would run is read; what nobody here knows is refused unless it is named."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest

from modelrel import pickles
from modelrel.errors import Refused
from modelrel.steps import grounds
from modelrel.steps.convert import convert
from modelrel.values import ConvertOptions, SourceModel
from tests.matrix import CASES
from tests.models import by_hand, pulled


class Calls:
    """An object whose unpickling calls something."""

    def __init__(self, of: Any, *args: Any) -> None:
        self.of, self.args = of, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.of, self.args


def through(source: SourceModel, *allow: str) -> pickles.Admitted:
    return pickles.admit(source.label, source.flavor, grounds.pickled(source), allow)


@pytest.mark.parametrize("name", ["forest", "torch_cnn", "branching", "scripted", "wrapper", "own"])
def test_ordinary_models_go_through(name: str, tmp_path: Path) -> None:
    assert through(CASES[name].make(tmp_path)).allowed == ()


def dumped(value: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump({"weights": np.arange(50.0), "deep": [value]}, stream, compress=3)
    return stream.getvalue()


def skopsed(*kinds: tuple[str, str]) -> bytes:
    stream = io.BytesIO()
    nodes = [{"__module__": module, "__class__": name, "__loader__": "ObjectNode"} for module, name in kinds]
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("schema.json", json.dumps({**nodes[0], "content": nodes[1:], "protocol": 2}))
    return stream.getvalue()


HOSTILE = {
    "os.system": (pickle.dumps(Calls(os.system, "true")), "posix.system"),
    "importlib": (pickle.dumps(Calls(importlib.import_module, "antigravity")), "importlib.import_module"),
    "builtins.eval": (pickle.dumps(Calls(eval, "1")), "builtins.eval"),
    "inside joblib": (dumped(Calls(os.system, "true")), "posix.system"),
    "skops with a foreign type": (
        skopsed(("sklearn.svm._classes", "SVC"), ("company.evil", "Run")),
        "company.evil.Run",
    ),
    "skops that runs": (skopsed(("sklearn.svm._classes", "SVC"), ("posix", "system")), "posix.system"),
    "a class of nobody knows where": (b"\x80\x04ccompany.models\nChurn\n)R.", "company.models.Churn"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_naming_what_it_asks_for_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, asked = HOSTILE[name]
    source = by_hand(tmp_path, content)
    with pytest.raises(Refused) as found:
        convert(source, "onnx", ConvertOptions())
    assert asked in found.value.message
    assert f"--allow-pickle {asked}" in found.value.hint
    assert not (tmp_path / "onnx").exists()


def test_what_is_allowed_by_name_goes_through_and_is_recorded(tmp_path: Path) -> None:
    source = by_hand(tmp_path, b"\x80\x04ccompany.models\nChurn\n)R.")
    for allow in ("company.models.Churn", "company.*", "model.pkl"):
        assert through(source, "not.needed", allow).allowed == (allow,)
    with pytest.raises(Refused, match=r"company\.models\.Churn"):
        through(source, "company.models")


def test_allowing_one_name_does_not_allow_another(tmp_path: Path) -> None:
    source = by_hand(tmp_path, pickle.dumps([Calls(os.system, "true"), Calls(eval, "1")]))
    with pytest.raises(Refused) as found:
        through(source, "posix.system")
    assert "builtins.eval" in found.value.message
    assert "posix.system" not in found.value.message


def test_a_trusted_list_in_the_models_own_description_is_not_believed(tmp_path: Path) -> None:
    by_hand(tmp_path, skopsed(("sklearn.svm._classes", "SVC"), ("company.evil", "Run")))
    said = tmp_path / "source/MLmodel"
    said.write_text(said.read_text() + "skops_trusted_types:\n- company.evil.Run\n")
    with pytest.raises(Refused, match=r"company\.evil\.Run"):
        through(pulled(tmp_path, "sklearn"))


def own_code(text: str) -> Any:
    """Return a Python model whose `predict` is the text, as somebody writes it in a notebook."""
    module = types.ModuleType("__main__")
    body = "\n    ".join(text.splitlines())
    exec(f"import numpy as np\nclass Own:\n  def predict(self, context, x):\n    {body}\n", module.__dict__)
    return module.Own()


NAMING = {
    "import os\nreturn os.system('true')": "os",
    "return open('/etc/passwd').read()": "open",
    "return eval('1')": "eval",
    "return getattr(np, 'o' + 's')": "getattr",
    "return ().__class__.__base__.__subclasses__()": "__subclasses__",
    "import subprocess as s\nreturn s.run(['true'])": "subprocess",
    "return (lambda: [__import__('os') for _ in x])()": "__import__",
    "def inner():\n  class Deep:\n    run = exec\n  return Deep\nreturn inner()": "exec",
}


@pytest.mark.parametrize("text", NAMING)
@pytest.mark.parametrize("flavor", ["pyfunc", "pytorch"])
def test_a_model_that_is_code_is_refused_where_its_code_names_what_reaches_further(
    text: str, flavor: str, tmp_path: Path
) -> None:
    source = replace(by_hand(tmp_path, cloudpickle.dumps(own_code(text))), flavor=flavor)
    with pytest.raises(Refused) as found:
        through(source)
    assert NAMING[text] in found.value.message
    assert through(source, "model.pkl").allowed == ("model.pkl",)


def test_a_model_that_is_code_goes_through_and_that_is_said(tmp_path: Path) -> None:
    source = by_hand(tmp_path, cloudpickle.dumps(own_code("return np.asarray(x).sum(axis=1) * 2")))
    admitted = through(replace(source, flavor="pyfunc"))
    assert "runs code of its author (model.pkl)" in admitted.notes[0]
    with pytest.raises(Refused, match="cloudpickle"):
        through(source)  # of scikit-learn nobody expects code


def test_reading_another_pickle_is_not_a_part_of_code(tmp_path: Path) -> None:
    inner = pickle.dumps(Calls(os.system, "true"))
    source = by_hand(tmp_path, pickle.dumps(Calls(cloudpickle.loads, inner)))
    with pytest.raises(Refused):
        through(replace(source, flavor="pyfunc"))


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Any]:
    """A model of a class whose source lies beside it."""
    folder = tmp_path / "lib"
    folder.mkdir()
    sys.path.insert(0, str(folder))

    def made(text: str) -> SourceModel:
        (folder / "pricing_gate.py").write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop("pricing_gate", None)
        source = by_hand(tmp_path / "model", pickle.dumps(importlib.import_module("pricing_gate").Price()))
        (source.model_dir / "code").mkdir()
        (source.model_dir / "code/pricing_gate.py").write_text(text)
        return replace(pulled(tmp_path / "model", "sklearn"), flavor="pyfunc")

    yield made
    sys.path.remove(str(folder))
    sys.modules.pop("pricing_gate", None)


def test_source_beside_a_model_that_is_code_is_looked_at_too(beside: Any) -> None:
    source = beside("class Price:\n  def predict(self, context, x):\n    return x * 2\n")
    assert "code/pricing_gate.py" in through(source).notes[0]
    with pytest.raises(Refused, match="code that is imported"):
        through(replace(source, flavor="sklearn"))


def test_source_that_names_a_program_is_refused(beside: Any) -> None:
    source = beside("import subprocess\nclass Price:\n  def predict(self, context, x):\n    return subprocess.run(x)\n")
    with pytest.raises(Refused, match=r"code/pricing_gate\.py .* names subprocess"):
        through(source)
    assert through(source, "code/*").allowed == ("code/*",)
