"""What MLflow's tensorflow and keras flavors logged is loaded, answers as MLflow does, and reaches for nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelrel import saved_models
from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, ModelrelError, Refused
from modelrel.flavors import FLAVORS
from modelrel.probes import rows
from modelrel.registry import mlmodel
from modelrel.values import Signature
from tests.conftest import Run
from tests.models import logged, pulled
from tests.networks import laid, saved, three

keras = pytest.importorskip("keras")
FLAT = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def small() -> Any:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])


def changed(folder: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes in a saved_model.pb by as many others."""
    assert len(old) == len(new)
    path = folder / "tf2model" / saved_models.FILE
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return folder


def test_a_keras_model_answers_as_mlflow_does(tmp_path: Path) -> None:
    import mlflow

    source = logged(small(), FLAT, tmp_path, flavor="tensorflow")
    native: Any = FLAVORS["tensorflow"].load(source.model_dir)
    assert source.signature is not None
    example = rows.example(source)
    assert example is not None
    found = FLAVORS["tensorflow"].predict(native, example, source.signature)
    expected = mlflow.pyfunc.load_model(str(source.model_dir)).predict(FLAT[:5])
    assert list(found) == ["prediction"]
    assert np.allclose(found["prediction"], expected, rtol=0, atol=1e-7)


def test_the_keras_flavor_of_older_mlflow_is_read(tmp_path: Path) -> None:
    laid(small(), tmp_path / "source", "model.h5")
    (tmp_path / "source" / "MLmodel").write_text("flavors:\n  keras: {data: data, keras_module: keras}\n")
    source = pulled(tmp_path, "keras")
    native: Any = FLAVORS["keras"].load(source.model_dir)
    assert FLAVORS["keras"].answers(native, source.model_dir).outputs == ("prediction",)


@pytest.fixture
def _registered_for_this_test() -> Iterator[None]:
    """What a test registers with Keras goes with it: MLflow writes all of it into every model that it saves."""
    registered = keras.saving.get_custom_objects()
    before = dict(registered)
    yield
    registered.clear()
    registered.update(before)


@pytest.mark.usefixtures("_registered_for_this_test")
def test_an_override_of_predict_step_is_what_the_model_answers(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test")
    class Twice(keras.Model):
        def predict_step(self, data: Any) -> Any:
            return 2 * super().predict_step(data)

    entered = keras.Input((4,))
    model = Twice(entered, keras.layers.Dense(2)(entered))
    native: Any = FLAVORS["tensorflow"].load(laid(model, tmp_path / "source"))
    source = mlmodel.read(tmp_path / "source")
    signature = Signature(kind="tensor", inputs=native.function.inputs)
    assert source.signatures == {}
    found = FLAVORS["tensorflow"].predict(native, {native.function.inputs[0].name: FLAT}, signature)
    assert np.allclose(found["prediction"], model.predict(FLAT, verbose=0))


def test_a_signature_is_read_without_tensorflow_and_is_tensorflow_s_own(tmp_path: Path) -> None:
    import tensorflow as tf

    module, signatures = three()
    folder = saved(module, tmp_path, signatures)
    found = saved_models.read(folder / "tf2model")
    loaded = tf.saved_model.load(str(folder / "tf2model"))
    assert set(found.signatures) == set(signatures)
    for name, signature in found.signatures.items():
        assert signature is not None
        own = loaded.signatures[name]
        inputs, outputs = own.structured_input_signature[1], own.structured_outputs
        assert {one.name: list(one.shape) for one in signature.inputs} == {
            key: [-1 if size is None else size for size in spec.shape] for key, spec in inputs.items()
        }
        assert {one.name for one in signature.outputs} == set(outputs)
    assert "MatMul" in found.operators


def test_a_model_with_state_or_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    of = keras.layers
    stateful = keras.Sequential([keras.Input(batch_shape=(1, 5, 4)), of.LSTM(3, stateful=True)])
    native: Any = FLAVORS["tensorflow"].load(laid(stateful, tmp_path / "state"))
    with pytest.raises(Refused, match="changes its own variables"):
        FLAVORS["tensorflow"].answers(native, tmp_path)
    fixed: Any = FLAVORS["tensorflow"].load(
        laid(keras.Sequential([keras.Input(batch_shape=(1, 4)), of.Dense(2)]), tmp_path / "fixed")
    )
    with pytest.raises(Refused, match=r"does not take any number of rows: .* is \[1, 4\]"):
        FLAVORS["tensorflow"].answers(fixed, tmp_path)


def vocabulary(folder: Path) -> Path:
    """Return a SavedModel that has an asset: a table of words."""
    import tensorflow as tf

    words = folder / "vocabulary.txt"
    folder.mkdir(parents=True, exist_ok=True)
    words.write_text("a\nb\n")

    class Words(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            file = tf.lookup.TextFileInitializer(
                tf.saved_model.Asset(str(words)), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
            )  # fmt: skip
            self.table = tf.lookup.StaticHashTable(file, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string, name="word")])
        def place(self, word: Any) -> Any:
            return {"place": self.table.lookup(word)}

    module = Words()
    return saved(module, folder / "source", {"serving_default": module.place.get_concrete_function()})


def test_a_table_of_an_asset_is_written_into_the_onnx_copy(tmp_path: Path) -> None:
    from tests.networks import compared

    words = np.array([["b"], ["a"], ["c"], [""]], object)
    worst, said = compared(vocabulary(tmp_path), {"word": words}, "onnx")
    assert (worst, said["outputs"][0]["datatype"]) == (0.0, "INT64")


@pytest.mark.parametrize("name", [b"../../../etc/pw", b"/etc/passwd.txt"], ids=["up", "absolute"])
def test_an_asset_outside_the_folder_is_refused_before_loading(name: bytes, tmp_path: Path) -> None:
    folder = changed(vocabulary(tmp_path), b"vocabulary.txt", (name + b"_" * 14)[:14])
    with Worker(pulled(tmp_path, "tensorflow"), Limits(seconds=120)) as worker, pytest.raises(Refused) as stop:
        worker.call("knots", signature={"kind": "tensor", "inputs": [], "outputs": []})
    assert "which is outside its folder" in stop.value.message
    assert "\n" not in stop.value.message
    assert (stop.value.exit_code, folder.is_dir()) == (4, True)


def test_a_graph_that_reads_files_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], name="x")])
        def answer(self, x: Any) -> Any:
            return {"y": tf.strings.length(tf.io.read_file("/etc/hostname")) + tf.cast(x, tf.int32)}

    module = Reads()
    folder = saved(module, tmp_path, {"serving_default": module.answer.get_concrete_function()})
    with pytest.raises(Refused, match="reads files or runs Python by itself \\(ReadFile\\)"):
        FLAVORS["tensorflow"].load(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"\x12\xff\xff\xff\xff\x07", b"\x12\x04\x2a\xff\xff\x7f", b"\xff" * 40, b"\x0a\x00\x12\x02\x0d\x00"],
)
def test_a_saved_model_that_claims_more_than_it_has_is_invalid(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tf2model").mkdir()
    (tmp_path / "tf2model" / saved_models.FILE).write_bytes(content)
    (tmp_path / "MLmodel").write_text("flavors:\n  tensorflow: {model_type: tf2-module, saved_model_dir: tf2model}\n")
    for read in (mlmodel.read, FLAVORS["tensorflow"].load):
        with pytest.raises(Invalid, match="is no SavedModel") as stop:
            read(tmp_path)
        assert "\n" not in stop.value.message


def test_changed_bytes_of_a_saved_model_are_one_sentence(tmp_path: Path) -> None:
    module, signatures = three()
    folder = saved(module, tmp_path, signatures)
    path = folder / "tf2model" / saved_models.FILE
    good, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(good)
        for _ in range(int(random.integers(1, 5))):
            content[int(random.integers(len(content)))] = int(random.integers(256))
        path.write_bytes(content)
        said = ""
        try:
            saved_models.check(folder / "tf2model")
        except ModelrelError as stop:
            said = stop.message
        assert "\n" not in said


@pytest.mark.parametrize("name", ["../../outside.txt", "/etc/cron.d/job", "assets/../../up"])
def test_a_keras_archive_that_leads_out_of_itself_is_refused(name: str, tmp_path: Path) -> None:
    folder = laid(small(), tmp_path / "source")
    with zipfile.ZipFile(folder / "data" / "model.keras", "a") as archive:
        archive.writestr(name, b"found me")
    with pytest.raises(Refused, match="leads out of it"):
        FLAVORS["tensorflow"].load(folder)
    assert not (tmp_path / "outside.txt").exists()


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    import h5py

    folder = laid(small(), tmp_path / "source", "model.h5")
    with h5py.File(folder / "data" / "model.h5", "a") as file:
        file["model_weights/secret"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(Refused, match="lie in another file"):
        FLAVORS["tensorflow"].load(folder)


def test_a_cut_keras_file_is_invalid(tmp_path: Path) -> None:
    folder = laid(small(), tmp_path / "source")
    path = folder / "data" / "model.keras"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Invalid, match=r"model\.keras cannot be loaded"):
        FLAVORS["tensorflow"].load(folder)


def test_inspect_lists_the_signatures_and_convert_takes_one(tmp_path: Path, run: Run) -> None:
    module, signatures = three()
    saved(module, tmp_path / "made", signatures)
    shown = run("inspect", str(tmp_path / "made"), "--quick")
    assert shown.code == 0
    assert "signature nearness" in shown.out
    refused = run("convert", str(tmp_path / "made"), "--json")
    assert (refused.code, refused.json["error"]["hint"]) == (4, "Choose one with --signature.")
    done = run("convert", str(tmp_path / "made"), "--signature", "nearness", "--json")
    assert done.code == 0, done.err
    assert done.json["converted"]["served"] == "nearness"
    assert [spec["name"] for spec in done.json["converted"]["inputs"]] == ["a", "b"]
    assert [spec["name"] for spec in done.json["converted"]["outputs"]] == ["nearness"]
    assert [one["name"] for one in done.json["parity"]["outputs"]] == ["nearness"]
    unknown = run("convert", str(tmp_path / "made"), "--signature", "neerness", "--json")
    assert unknown.code == 2
    assert "has no signature 'neerness'" in unknown.json["error"]["message"]
