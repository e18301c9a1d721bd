"""A function carries what answering needs: every kind of operator runs, compiled modules are used, bytes repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from modelrel import archive, bytecode, interpreters, wheels
from modelrel.delivered import Package
from modelrel.serving import adapters
from modelrel.steps.package import package
from modelrel.targets import aws_lambda, slim
from modelrel.values import PackageOptions
from tests.targets import tiny

RUN = """
import json, sys, zlib
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime
plain = lambda value: value.tolist() if isinstance(value, np.ndarray) else value
for path in sys.argv[2:]:
    feeds = {name: np.array(value, np.dtype(kind)) for name, (kind, value) in json.load(open(path + ".json")).items()}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    print(json.dumps([plain(value) for value in session.run(None, feeds)]))
"""
X = np.linspace(-2, 3, 48).reshape(2, 24)
TEXTS = np.array(["The cat sat", "größer als NICHTS"], object)

GRAPHS: dict[str, str] = {
    "a convolutional net": """
        <ir_version: 10, opset_import: ["" : 22]> g (float[N, 24] x) => (float[a, b, c, d] y)
        <float[2, 1, 3, 3] w = {1,2,3,4,5,6,7,8,9,9,8,7,6,5,4,3,2,1}, int64[4] s = {0, 1, 4, 6}, float[2] one = {1, 1},
         float[2] zero = {0, 0}>
        { i = Reshape(x, s) c1 = Conv<pads = [1, 1, 1, 1]>(i, w) n = BatchNormalization(c1, one, zero, zero, one)
          r = Relu(n) y = MaxPool<kernel_shape = [2, 2]>(r) }""",
    "float16": """
        <ir_version: 10, opset_import: ["" : 22]> g (float[N, 24] x) => (float[N, 24] y)
        { h = Cast<to = 10>(x) t = Transpose(h) m = MatMul(h, t) q = MatMul(m, h) s = Softmax(q)
          y = Cast<to = 1>(s) }""",
    "integers for real numbers": """
        <ir_version: 10, opset_import: ["" : 22]> g (float[N, 24] x) => (float[N, 24] y)
        { q, s, z = DynamicQuantizeLinear(x) t = Transpose(q) i = MatMulInteger(q, t, z, z) f = Cast<to = 1>(i)
          m = MatMul(f, x) d = DequantizeLinear(q, s, z) y = Add(m, d) }""",
    "text": """
        <ir_version: 10, opset_import: ["" : 22, "ai.onnx.ml" : 4]> g (string[N] t) => (string[N, M] y, int64[N] n)
        { l = StringNormalizer<case_change_action = "LOWER", is_case_sensitive = 0, locale = "C">(t)
          y, n = StringSplit<delimiter = " ">(l) }""",
    "words counted": """
        <ir_version: 10, opset_import: ["" : 22]> g (string[N] t) => (float[N, 2] y)
        { s, n = StringSplit<delimiter = " ">(t)
          y = TfIdfVectorizer<mode = "TF", max_gram_length = 1, min_gram_length = 1, max_skip_count = 0,
              ngram_counts = [0], ngram_indexes = [0, 1], pool_strings = ["cat", "als"]>(s) }""",
    "loops, branches, sequences": """
        <ir_version: 10, opset_import: ["" : 22]> g (float[N, 24] x) => (float[M, 24] y)
        <int64 three = {3}, bool yes = {1}>
        { z = Loop(three, yes, x) <body = b (int64 i, bool c, float[N, 24] v) => (bool o, float[N, 24] w)
              { o = Identity(c) f = Cast<to = 1>(i) w = Add(v, f) }>
          a = If(yes) <then_branch = p () => (float[N, 24] u) { u = Neg(z) },
                       else_branch = q () => (float[N, 24] r) { r = Identity(z) }>
          s = SequenceConstruct(a, z) y = ConcatFromSequence<axis = 0>(s) }""",
    "einsum, resize, a Fourier transform": """
        <ir_version: 10, opset_import: ["" : 22]> g (float[N, 24] x) => (float[N, M] y, float[N, 24, 2] f)
        <float[2] half = {1, 0.5}, int64[3] shape = {-1, 24, 1}, int64 axis = {1}>
        { e = Einsum<equation = "ij,kj->ik">(x, x) m = MatMul(e, x) y = Resize<mode = "linear">(m, , half)
          r = Reshape(x, shape) f = DFT(r, , axis) }""",
    "what onnxruntime adds of its own": """
        <ir_version: 10, opset_import: ["" : 22, "com.microsoft" : 1]> g (float[N, 24] x) => (float[N, 24] y)
        { a = com.microsoft.Gelu(x) t = Transpose(a) m = com.microsoft.FusedMatMul<alpha = 0.5>(a, t)
          b = MatMul(m, x) y = com.microsoft.QuickGelu(b) }""",
    "a linear classifier with classes by name": """
        <ir_version: 10, opset_import: ["" : 22, "ai.onnx.ml" : 3]>
        g (float[N, 24] x) => (string[N] l, seq(map(string, float)) m)
        { s = ai.onnx.ml.Scaler<offset = [1.0], scale = [0.5]>(x)
          l, p = ai.onnx.ml.LinearClassifier<classlabels_strings = ["no", "yes"],
              coefficients = COEFFICIENTS, intercepts = [0.1, -0.1], post_transform = "SOFTMAX">(s)
          m = ai.onnx.ml.ZipMap<classlabels_strings = ["no", "yes"]>(p) }""".replace(
        "COEFFICIENTS", str([round(0.01 * k - 0.2, 2) for k in range(48)])
    ),
}


def forest() -> onnx.ModelProto:
    """Return one tree, as the trees of every flavor are written: TreeEnsemble of ai.onnx.ml 5."""
    node = helper.make_node(
        "TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, post_transform=0, aggregate_function=1,
        nodes_featureids=[3], nodes_splits=helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5]),
        nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [1], [0]), nodes_truenodeids=[0], nodes_trueleafs=[1],
        nodes_falsenodeids=[1], nodes_falseleafs=[1], tree_roots=[0], leaf_targetids=[0, 0],
        leaf_weights=helper.make_tensor("w", TensorProto.FLOAT, [2], [1.5, -2.0]),
    )  # fmt: skip
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 24), ("y", 1))
    ]
    graph = helper.make_graph([node], "forest", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 5)], ir_version=10)


@cache
def unpacked() -> Path:
    made = tiny.delivered("lambda", python=tiny.lambda_python())
    folder = tiny.place() / "slim"
    with zipfile.ZipFile(made.folder / made.artifact) as packed:
        packed.extractall(folder)
    return folder


def inside(made: Package) -> list[str]:
    with zipfile.ZipFile(made.folder / made.artifact) as packed:
        return packed.namelist()


def ran(*words: str) -> str:
    program = interpreters.find(tiny.lambda_python())
    done = subprocess.run(
        [str(program), "-S", "-s", *words], capture_output=True, text=True, check=False, env={"PATH": os.defpath}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_kind_of_operator_runs_on_what_is_left(tmp_path: Path) -> None:
    models = {name: onnx.parser.parse_model(text) for name, text in GRAPHS.items()} | {"a forest": forest()}
    paths, expected = [], []
    for number, model in enumerate(models.values()):
        path = tmp_path / f"{number}.onnx"
        onnx.save(model, str(path))
        text = model.graph.input[0].name == "t"
        feeds: dict[str, Any] = {"t": TEXTS} if text else {"x": X.astype(np.float32)}
        kinds = {name: ("object" if text else "float32", value.tolist()) for name, value in feeds.items()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(kinds))
        answers = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
        expected.append([one.tolist() if isinstance(one, np.ndarray) else one for one in answers])
        paths.append(str(path))
    found = [json.loads(line) for line in ran("-c", RUN, str(unpacked()), *paths).splitlines()]
    for name, ours, theirs in zip(models, found, expected, strict=True):
        same(name, ours, theirs)


def same(name: str, ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list) and theirs:
        assert len(ours) == len(theirs), name
        for one, other in zip(ours, theirs, strict=True):
            same(name, one, other)
    elif isinstance(theirs, dict):
        assert ours == pytest.approx(theirs, rel=1e-5), name
    else:
        assert ours == (pytest.approx(theirs, rel=1e-4, abs=1e-5) if isinstance(theirs, float) else theirs), name


def test_the_zip_is_below_28_mb() -> None:
    assert tiny.delivered("lambda", python=tiny.lambda_python()).size < 28_000_000


def test_what_only_tools_need_is_left_out() -> None:
    names = inside(tiny.delivered("lambda", python=tiny.lambda_python()))
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert not tops & {"google", "protobuf", "flatbuffers", "packaging", "bin"}
    assert not [name for name in names if name.startswith(("numpy/random/", "numpy/fft/", "onnxruntime/tools/"))]


def test_the_bill_of_materials_lists_what_is_left() -> None:
    bill = json.loads((unpacked() / "sbom.cdx.json").read_text())
    listed = {one["name"] for one in bill["components"] if one.get("purl", "").startswith("pkg:pypi/")}
    assert listed == {"modelrel", "msgspec", "numpy", "onnxruntime"}


def test_licences_of_what_is_left_stay() -> None:
    names = inside(tiny.delivered("lambda", python=tiny.lambda_python()))
    for distribution in ("numpy", "msgspec"):
        assert [name for name in names if name.startswith(f"{distribution}-") and "/licenses/" in name]
    assert "onnxruntime/ThirdPartyNotices.txt" in names


def test_slim_no_keeps_everything(tmp_path: Path) -> None:
    options = PackageOptions(python=tiny.lambda_python(), values={"slim": "no"})
    names = inside(package(tiny.verified(tmp_path), "lambda", options))
    assert "numpy/random/__init__.py" in names
    assert [name for name in names if name.startswith("flatbuffers/")]


def test_every_adapter_keeps_what_it_requires() -> None:
    needed = {name for kind in adapters.KINDS.values() for name in kind.REQUIRES}
    assert needed <= slim.ROOTS.keys()


@pytest.mark.parametrize("platform", sorted(aws_lambda.ARCHITECTURES))
def test_every_library_in_the_zip_is_for_its_architecture(platform: str, tmp_path: Path) -> None:
    options = PackageOptions(python="3.13", platform=platform)
    made = package(tiny.verified(tmp_path / "release"), "lambda", options)
    with zipfile.ZipFile(made.folder / made.artifact) as packed:
        libraries = [name for name in packed.namelist() if ".so" in Path(name).name]
        packed.extractall(tmp_path / "task")
    wheels.check_machine(tmp_path / "task", platform)
    assert {Path(name).name.partition(".")[0] for name in libraries} >= {
        "onnxruntime_pybind11_state",
        "_multiarray_umath",
    }


def test_compiled_modules_are_used_as_they_are() -> None:
    # a source that is not the one which was compiled shows which of the two was taken
    folder = tiny.place() / "unpacked-to-change"
    made = tiny.delivered("lambda", python=tiny.lambda_python())
    with zipfile.ZipFile(made.folder / made.artifact) as packed:
        packed.extractall(folder, [name for name in packed.namelist() if name.startswith("serving/")])
    (folder / "serving" / "__init__.py").write_text("raise RuntimeError('compiled again')\n")
    shown = ran("-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import serving; print(serving.VERSION)")
    assert shown.strip()


def test_the_handler_is_not_compiled_so_that_people_can_change_it() -> None:
    names = inside(tiny.delivered("lambda", python=tiny.lambda_python()))
    assert not [name for name in names if "handler." in name and name.endswith(".pyc")]


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {}
    for name, text in {"a.py": "X = {'one', 'two', 'three'}\nY = 1 in {'q', 'r'}\n", "b/c.py": "import a\n"}.items():
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sources[name] = path
    digests = []
    for turn in ("first", "second"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / turn))
        monkeypatch.setenv("PYTHONHASHSEED", str(len(turn)))
        os.utime(sources["a.py"], (0, len(turn)))
        found = bytecode.compiled(sources, "/var/task", "{}.{}".format(*sys.version_info[:2]))
        digests.append({name: archive.sha256(path) for name, path in found.items()})
    tag = sys.implementation.cache_tag
    assert digests[0] == digests[1]
    assert digests[0].keys() == {f"__pycache__/a.{tag}.pyc", f"b/__pycache__/c.{tag}.pyc"}


def test_a_source_of_another_python_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("print 'hello'\n")
    (tmp_path / "new.py").write_text("print('hello')\n")
    files = {name: tmp_path / name for name in ("old.py", "new.py")}
    found = bytecode.compiled(files, "/x", "{}.{}".format(*sys.version_info[:2]))
    assert [name.partition(".")[0] for name in found] == ["__pycache__/new"]


def test_without_an_interpreter_nothing_is_compiled_and_the_package_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode.interpreters, "find", lambda _: None)
    made = package(tiny.verified(tmp_path), "lambda", PackageOptions(python="3.13"))
    assert not [name for name in inside(made) if name.endswith(".pyc")]
    assert [note for note in made.notes if "no Python 3.13 here to compile" in note]


NAMES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
print(json.dumps([sorted(dir(one)) for one in (np, np.linalg, np.lib, np.char, np.ndarray, np.dtype, np.ufunc)]))
"""

WITHOUT_DOCS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from numpy._typing import ArrayLike, NDArray
def rows(given: ArrayLike) -> NDArray[np.float64] | None: ...
assert np.linalg.eig(np.eye(2)).eigenvalues.tolist() == [1, 1]
print(np.ndarray.sum.__doc__, ArrayLike.__module__)
"""


def test_numpy_has_every_name_that_it_has_in_its_wheel(tmp_path: Path) -> None:
    options = PackageOptions(python=tiny.lambda_python(), values={"slim": "no"})
    made = package(tiny.verified(tmp_path / "release"), "lambda", options)
    with zipfile.ZipFile(made.folder / made.artifact) as packed:
        packed.extractall(tmp_path / "whole", [name for name in packed.namelist() if name.startswith("numpy")])
    assert json.loads(ran("-c", NAMES, str(unpacked()))) == json.loads(ran("-c", NAMES, str(tmp_path / "whole")))


def test_numpy_does_without_docstrings_and_types_that_nobody_reads() -> None:
    assert ran("-c", WITHOUT_DOCS, str(unpacked())).split() == ["None", "numpy._typing"]
