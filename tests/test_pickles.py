"""What a model's pickles would run is told without loading them, however it is hidden; nothing of it is believed."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import operator
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from modelrel import pickles
from modelrel.pickles import Finding

ROWS = np.random.default_rng(0).random((60, 4))
KINDS = (ROWS[:, 0] > 0.5).astype(int)


class Calls:
    """An object whose unpickling calls something."""

    def __init__(self, of: Any, *args: Any) -> None:
        self.of, self.args = of, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.of, self.args


def found(content: bytes, name: str, folder: Path) -> Finding | None:
    path = folder / "content"
    path.write_bytes(content)
    findings = pickles.examine({name: path})
    return findings[0] if findings else None


def verdict(content: bytes, folder: Path, name: str = "model.pkl") -> str:
    finding = found(content, name, folder)
    return finding.verdict if finding else "none"


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def asks(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def machine(*steps: bytes) -> bytes:
    return b"\x80\x04" + b"".join(steps) + b"."


CALLS = {
    "os.system": Calls(os.system, "true"),
    "subprocess.Popen": Calls(subprocess.Popen, ["true"]),
    "eval": Calls(eval, "1"),
    "exec": Calls(exec, "1"),
    "__import__": Calls(__import__, "os"),
    "open": Calls(open, os.devnull),
    "getattr of a private": Calls(getattr, list, "__class__"),
    "reduce over getattr": Calls(functools.reduce, getattr, ["real"], 1),
    "methodcaller": Calls(operator.methodcaller("lower"), "X"),
    "pickle.loads": Calls(pickle.loads, b"N."),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("what", CALLS)
def test_what_runs_anything_is_dangerous_in_every_protocol(what: str, protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"deep": [(1, CALLS[what])]}, protocol)
    assert verdict(content, tmp_path) == "dangerous"
    assert verdict(content, tmp_path, "no-ending-that-anybody-knows") == "dangerous"


HIDDEN = {
    "names from the memory": machine(
        text("os"), b"\x94", text("system"), b"\x94", b"00", b"h\x00h\x01\x93", text("true"), b"\x85R"
    ),
    "names swapped by pops": machine(text("math"), text("os"), b"q\x07", b"0", b"0", b"h\x07", text("system"), b"\x93"),
    "through an attribute of a library": machine(asks("sklearn.utils", "os.system"), text("true"), b"\x85R"),
    "a library's own import": machine(asks("sklearn.utils", "os"), b"}", text("a"), text("b"), b"sb"),
    "a class that is changed": machine(asks("sklearn.svm._classes", "SVC"), b"}", text("fit"), b"Nsb"),
    "a name that is computed": machine(
        asks("codecs", "decode"), text("flfgrz"), text("rot13"), b"\x86R", b"q\x00", b"0", text("os"), b"h\x00\x93"
    ),
    "the result of a call that is called": machine(
        asks("functools", "partial"), asks("builtins", "len"), b"\x85R", text("x"), b"\x85R"
    ),
    "getattr that computes": machine(
        asks("builtins", "getattr"), asks("numpy", "ndarray"), asks("builtins", "str"), b")R", b"\x86R"
    ),
    "modules by name": machine(asks("sys", "modules")),
    "a memory map that writes": machine(asks("numpy.testing", "os.remove")),
    "two lines, by Python 2's name": b"c__builtin__\neval\n(S'1'\ntR.",
    "commands, which is Python 2's": b"ccommands\ngetoutput\n(S'true'\ntR.",
    "an instance": b"(S'true'\nios\nsystem\n.",
    "an object of a group": b"(cos\nsystem\nS'true'\no.",
    "text with escapes": b"\x80\x02V\\u006fs\nVsystem\n\x93.",
    "that breaks after the call": b"cos\nsystem\n(S'true'\ntRzzz",
    "behind what nobody reads": b"\x80\x04" + b"\xff" * 9 + b"cos\nsystem\n(S'true'\ntR.",
    "after a harmless pickle": pickle.dumps([1]) + pickle.dumps(CALLS["eval"]),
    "after a harmless pickle, without a mark": pickle.dumps([1]) + b"cos\nsystem\n(S'true'\ntR.",
    "a long text before": machine(b"\x8d" + struct.pack("<Q", 10**6) + b"." * 10**6, b"0", asks("os", "system")),
}


@pytest.mark.parametrize("trick", HIDDEN)
def test_a_trick_does_not_hide_it(trick: str, tmp_path: Path) -> None:
    assert verdict(HIDDEN[trick], tmp_path) == "dangerous"


def zipped(content: bytes, name: str = "archive/data.pkl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return stream.getvalue()


def tarred(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def numpied(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([value, 1], object), allow_pickle=True)
    return stream.getvalue()


def dumped(value: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream)
    return stream.getvalue()


EVIL = pickle.dumps(CALLS["os.system"])
WRAPPED = {
    "gzip": gzip.compress(EVIL),
    "zlib": zlib.compress(EVIL),
    "bz2": bz2.compress(EVIL),
    "xz": lzma.compress(EVIL),
    "lzma": lzma.compress(EVIL, lzma.FORMAT_ALONE),
    "zip": zipped(EVIL),
    "zip in zip": zipped(zipped(EVIL), "inner.pt"),
    "zip behind a pickle": pickle.dumps(1) + zipped(EVIL),
    "pickle before a zip": EVIL + zipped(b"harmless"),
    "tar": tarred(EVIL),
    "gzip in tar": tarred(gzip.compress(EVIL)),
    "npy": numpied(CALLS["eval"]),
    "npz": zipped(numpied(CALLS["eval"]), "a.npy"),
    "joblib": dumped({"a": np.arange(50.0), "evil": CALLS["eval"], "b": np.ones(3)}),
    "objects in joblib": dumped({"a": np.arange(50.0), "o": np.array([CALLS["eval"]], object)}),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_it_is_found_in_archives_arrays_and_packed_files(how: str, tmp_path: Path) -> None:
    assert verdict(WRAPPED[how], tmp_path, "model.pt") == "dangerous"


def test_what_only_a_plain_reader_would_run_is_found_too(tmp_path: Path) -> None:
    steps = b"0cos\nsystem\n(S'true'\ntR."
    content = dumped({"a": np.frombuffer(steps, np.uint8)})
    at = content.index(steps)
    padding = content[: at - 1].rindex(b"b") + 1  # what follows the wrapper: a size, and as many bytes
    hidden = content[:padding] + b"\x00" + content[at:]
    assert joblib.load(io.BytesIO(hidden))["a"].tobytes() == steps
    assert verdict(content[:padding] + steps + content[at + len(steps) :], tmp_path) == "dangerous"


MODELS = {
    "forest": RandomForestClassifier(3, random_state=0).fit(ROWS, KINDS),
    "boosting": HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(ROWS, KINDS),
    "pipeline": make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), RandomForestClassifier(2)).fit(
        ROWS, KINDS
    ),
    "words": TfidfVectorizer().fit(["a good day", "a bad night"]),
    "neighbours": KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, KINDS),
    "process": GaussianProcessClassifier(random_state=0).fit(ROWS, KINDS),
    "collections": OrderedDict(a={1, 2}, b=[np.float64(1), np.datetime64("2026-01-01")]),
}


@pytest.mark.parametrize("model", MODELS)
def test_estimators_are_known_however_they_are_pickled(model: str, tmp_path: Path) -> None:
    one = MODELS[model]
    contents = [pickle.dumps(one, protocol) for protocol in range(6)] + [cloudpickle.dumps(one), dumped(one)]
    for packing in (3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)):
        stream = tmp_path / "packed"
        joblib.dump(one, stream, compress=packing)
        contents.append(stream.read_bytes())
    assert {verdict(content, tmp_path) for content in contents} == {"known"}


def test_boosters_are_known(tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    for one in (xgboost.XGBClassifier(n_estimators=2), lightgbm.LGBMClassifier(n_estimators=2, verbose=-1)):
        assert verdict(cloudpickle.dumps(one.fit(ROWS, KINDS)), tmp_path) == "known"


@pytest.mark.parametrize("zipped", [True, False])
def test_networks_of_pytorch_are_known_and_what_hides_in_them_is_found(zipped: bool, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model.pt"
    for saved, expected in (
        (torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), "known"),
        ({"state": torch.nn.Linear(4, 2).state_dict(), "more": CALLS["eval"]}, "dangerous"),
    ):
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        assert verdict(path.read_bytes(), tmp_path) == expected


def test_code_that_a_pickle_brings_is_unknown_and_named(tmp_path: Path) -> None:
    finding = found(cloudpickle.dumps(FunctionTransformer(lambda x: x + 1)), "model.pkl", tmp_path)
    assert finding is not None
    assert finding.verdict == "unknown"
    assert "cloudpickle.cloudpickle._make_function" in finding.names


def test_a_class_of_nobody_knows_where_is_unknown(tmp_path: Path) -> None:
    assert verdict(machine(asks("company.models", "Churn"), b")R"), tmp_path) == "unknown"


PLAIN = {
    "MLmodel": b"artifact_path: model\nflavors:\n  python_function:\n    env: conda.yaml\n",
    "requirements.txt": b"cloudpickle==3.1.2\ncatboost\nc\nnumpy\n",
    "model.txt": b"tree\nversion=v4\nnum_class=1\n",
    "model.ubj": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{",
    "data.csv": b"id,count\n1,2\n",
    "labels.txt": b"cos\nsystem\n",  # a name alone does nothing, and no reader unpickles it
    "empty": b"",
    "image.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_that_is_no_pickle_runs_nothing(name: str, tmp_path: Path) -> None:
    assert verdict(PLAIN[name], tmp_path, name) == "none"


def test_an_array_of_numbers_runs_nothing(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, ROWS)
    assert verdict(stream.getvalue(), tmp_path, "rows.npy") == "none"


@pytest.mark.parametrize("name", ["code/pricing.py", "code/fast.so", "code/__pycache__/x.pyc"])
def test_code_beside_the_model_is_unknown(name: str, tmp_path: Path) -> None:
    assert verdict(b"import os\n", tmp_path, name) == "unknown"


def test_a_lambda_layer_of_keras_is_code(tmp_path: Path) -> None:
    config = b'{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}'
    assert verdict(zipped(config, "config.json"), tmp_path, "model.keras") == "unknown"
    assert verdict(zipped(b'{"class_name": "Dense"}', "config.json"), tmp_path, "model.keras") == "none"


def test_an_archive_that_cannot_be_read_is_not_called_harmless(tmp_path: Path) -> None:
    whole = zipped(b"harmless" * 100)
    for content in (whole[:40] + bytes(8) + whole[48:], whole[:30] + whole[44:]):
        assert verdict(content, tmp_path, "model.pt") == "unknown"


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_looked_through_without_a_fault(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    whole = dumped(MODELS["forest"])
    for _ in range(150):
        content = bytearray(whole[: int(random.integers(1, len(whole)))])
        for place in random.integers(0, len(content), 5):
            content[place] = random.integers(0, 256)
        assert verdict(bytes(content), tmp_path) in ("none", "known", "unknown", "dangerous")


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    content = pickle.dumps(Calls(os.mkdir, str(witness)))
    assert verdict(content, tmp_path) == "dangerous"
    assert not witness.exists()
