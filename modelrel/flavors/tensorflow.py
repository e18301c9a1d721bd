"""TensorFlow: Keras models (.keras, .h5) and SavedModels of any age, logged by MLflow's tensorflow or keras flavor.

Formats: MLflow's `mlflow.tensorflow` (model_type, data, saved_model_dir), Keras's `.keras` archive, TensorFlow's
SavedModel folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel import extras, networks, saved_models
from modelrel.errors import Invalid, Refused
from modelrel.flavors import keras_files, mlmodel
from modelrel.flavors.calibrated import Curve
from modelrel.networks import Function, Network
from modelrel.tensors import NUMPY, Array, Tensors, rows, stack, take, text
from modelrel.values import Answers, Signature, TensorSpec

_AT_ONCE: Final = 256
"""Rows that the original answers together."""


def load(folder: Path) -> Network:
    """Return the model logged in `folder`, with all its signatures.

    Raises `Invalid` for a damaged file, `Refused` for one that reaches outside its folder, `Unavailable` without
    TensorFlow.
    """
    said = _configuration(folder)
    kind = said.get("model_type") or ("tf1-estimator" if "signature_def_key" in said else "keras")
    if kind != "keras":
        path = mlmodel.inside(folder, str(said.get("saved_model_dir", "tf2model")))
        return mlmodel.opened(lambda: _saved(path, said), path)
    data = mlmodel.inside(folder, str(said.get("data", "data")))
    path = _keras_file(data)
    if path.is_dir():
        return mlmodel.opened(lambda: _saved(path, {}), path)
    return mlmodel.opened(lambda: _keras(path, data), path)


def answers(native: Any, _folder: Path) -> Answers:
    """Return the outputs of the function that is served; MLflow's predict gives all, of which the first stands."""
    if not native.served:  # nobody chose one yet
        return Answers(outputs=(), predict="", estimator=native.estimator)
    _served(native)
    names = tuple(spec.name for spec in native.function.outputs)
    return Answers(outputs=names, predict=names[0], estimator=native.estimator)


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, computed as MLflow's predict does, some rows at a time."""
    tf = _tensorflow()
    function = native.function
    pieces = []
    for at in range(0, rows(tensors), _AT_ONCE):
        piece = take(tensors, slice(at, at + _AT_ONCE))
        given = {name: tf.constant(_bytes(array)) for name, array in piece.items()}
        try:
            found = function.call(networks.entered(tf, function, signature, given))
        except tf.errors.OpError as error:
            raise ValueError(_said(error.message)) from error
        pieces.append({spec.name: _array(one) for spec, one in zip(function.outputs, found, strict=True)})
    return stack(list(pieces))


def _said(message: str) -> str:
    """Return what went wrong, of TensorFlow's account of where: `indices[0,3] = 27 is not in [0, 20)`."""
    found = re.findall(r"([^\n]+?)\s*\[\[", message)
    return str(found[-1]) if found else message[:300]


def curves(_native: Any, _signature: Signature) -> list[Curve]:
    """Return none: no network is calibrated."""
    return []


def _served(native: Network) -> None:
    """Raise `Refused` where the function cannot answer any number of rows, or does not answer them alike."""
    function = native.function
    changing = sorted(name for name in function.operators if name.startswith("Assign"))
    if changing:
        raise Refused(
            f"{native.estimator} changes its own variables when it answers ({', '.join(changing)}), "
            "so that its answers depend on what it was asked before",
            "Save it without state: stateful=False, training=False.",
        )
    fixed = [spec for spec in (*function.inputs, *function.outputs) if not spec.shape or spec.shape[0] >= 0]
    if fixed or not function.inputs:
        said = f"{fixed[0].name} is {list(fixed[0].shape)}" if fixed else "it has no inputs"
        raise Refused(
            f"{native.estimator} does not take any number of rows: {said}",
            "Save it with an open first dimension: Input(shape=...) without batch_size, TensorSpec([None, ...]).",
        )


def _configuration(folder: Path) -> dict[str, Any]:
    """Return what MLmodel says about the tensorflow flavor, or about the keras flavor of older MLflows."""
    try:
        return mlmodel.configuration(folder, "tensorflow")
    except Invalid as error:
        try:
            return mlmodel.configuration(folder, "keras")
        except Invalid:
            raise error from None


def _tensorflow() -> Any:
    """Import TensorFlow, quietly and without a GPU: what it answers must not depend on the machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    return extras.load("tensorflow")


def _keras_file(data: Path) -> Path:
    """Return the file, or the SavedModel folder, that MLflow put into `data`."""
    for name in ("model.keras", "model.h5", "model"):
        if (data / name).exists():
            return data / name
    raise Invalid(f"{data.name} holds no model.keras, model.h5 or model", "Log the model again with MLflow.")


def _keras(path: Path, data: Path) -> Network:
    tf = _tensorflow()
    keras = keras_files.library(path)
    # A Lambda layer's code runs as everything of the model does: in this process only.
    model = keras.models.load_model(path, custom_objects=_custom(data), compile=False, safe_mode=False)
    function = _keras_function(tf, model)
    return Network({saved_models.DEFAULT: function}, saved_models.DEFAULT, type(model).__name__, model)


def _custom(data: Path) -> dict[str, Any]:
    """Return the classes and functions that were logged beside the model."""
    found: dict[str, Any] = {}
    for name in ("global_custom_objects.cloudpickle", "custom_objects.cloudpickle"):
        if (data / name).is_file():
            loaded = mlmodel.unpickled(data / name, "cloudpickle", None)
            found |= loaded if isinstance(loaded, dict) else {}
    return found


def _keras_function(tf: Any, model: Any) -> Function:
    """Return what the model's own `predict` computes."""
    inputs = _keras_inputs(tf, model)
    _without_fused(model)
    structure = getattr(model, "input", None)  # a Sequential has none

    def body(*given: Any) -> Any:
        packed = given[0] if structure is None else tf.nest.pack_sequence_as(structure, list(given))
        return model.predict_step((packed,))

    return _traced(tf, body, inputs, list(getattr(model, "output_names", ())))


def _keras_inputs(tf: Any, model: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs of a Keras model; a subclassed one knows the shape it was built for, and computes in floats."""
    tensors = getattr(model, "inputs", None)
    if tensors:
        packed = getattr(model, "input", None)
        keys = sorted(packed) if isinstance(packed, Mapping) else []  # what `predict` takes is called so
        names = keys if len(keys) == len(tensors) else [tensor.name for tensor in tensors]
        return tuple(
            _spec(name, tf.as_dtype(one.dtype).name, one.shape) for name, one in zip(names, tensors, strict=True)
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if not shape or not all(size is None or isinstance(size, int) for size in shape):
        raise Refused(
            f"{type(model).__name__} does not say what goes into it, as a subclassed model of several inputs",
            "Log a functional model, or a SavedModel (model.export) with its signatures.",
        )
    return (_spec("input", "float32", (None, *shape[1:])),)


def _without_fused(model: Any) -> None:
    """Have recurrent layers of Keras 2 compute step by step.

    TFLite's converter makes such a layer one operator that keeps its state from one row to the next.
    """
    for layer in getattr(model, "submodules", ()):
        if hasattr(layer, "_could_use_gpu_kernel"):
            layer._could_use_gpu_kernel = False  # noqa: SLF001 - there is no other switch


def _traced(tf: Any, body: Callable[..., Any], inputs: tuple[TensorSpec, ...], known: list[str]) -> Function:
    """Return a function of Python as one of TensorFlow; its outputs are named by their keys, else by `known`."""
    signature = [
        tf.TensorSpec([None if size < 0 else size for size in spec.shape], _kind(tf, spec.datatype)) for spec in inputs
    ]
    concrete = tf.function(body, input_signature=signature, autograph=False).get_concrete_function()
    found = concrete.structured_outputs
    flat = tf.nest.flatten(found)
    if isinstance(found, Mapping):
        names = [str(name) for name in sorted(found)]
    elif len(flat) == 1:
        names = ["prediction"]
    else:
        names = known if len(set(known)) == len(flat) else [f"output_{number}" for number in range(len(flat))]
    outputs = tuple(_spec(name, one.dtype.name, one.shape) for name, one in zip(names, flat, strict=True))
    return Function(
        inputs,
        outputs,
        call=lambda given: tf.nest.flatten(concrete(*given)),
        anew=lambda given: tf.nest.flatten(body(*given)),
        operators=_operators(concrete),
    )


def _operators(concrete: Any) -> frozenset[str]:
    graph = concrete.graph.as_graph_def()
    inner = (node.op for function in graph.library.function for node in function.node_def)
    return frozenset((*(node.op for node in graph.node), *inner))


def _saved(path: Path, said: Mapping[str, Any]) -> Network:
    contents = saved_models.check(path)
    tf = _tensorflow()
    old = (path / "keras_metadata.pb").is_file() or b"_tf_keras_" in (path / saved_models.FILE).read_bytes()
    if old:
        extras.load("tf_keras")  # it registers the classes of Keras 2, without which such a model does not load
    loaded = tf.saved_model.load(str(path), tags=said.get("meta_graph_tags"))
    usable = [name for name in loaded.signatures if contents.signatures.get(name) is not None]
    functions = {name: _signature_function(loaded.signatures[name]) for name in sorted(usable)}
    if not functions:
        functions = {"__call__": _called(tf, loaded)}
    served = saved_models.default(functions, str(said.get("signature_def_key") or ""))
    if served and served not in functions:
        raise Invalid(f"MLmodel names the signature {served!r}, which the SavedModel does not have", "Log it again.")
    network = Network(functions, served, "SavedModel", loaded)
    return _with_layers(tf, network, path) if old and served else network


def _called(tf: Any, loaded: Any) -> Function:
    """Return what the module itself answers, which is what MLflow's pyfunc calls."""
    concretes = getattr(loaded.__call__, "concrete_functions", None) or [] if callable(loaded) else []
    if len(concretes) != 1:
        raise Refused(
            f"the SavedModel has no signature, and {len(concretes)} forms of __call__",
            "Save it again with tf.saved_model.save(model, folder, signatures=...).",
        )
    positional, named = concretes[0].structured_input_signature
    if named:
        raise Refused("the SavedModel's __call__ takes named tensors, and it has no signature", "Save signatures.")
    flat = tf.nest.flatten(positional)
    inputs = tuple(
        _spec(spec.name or f"input_{number}", spec.dtype.name, spec.shape) for number, spec in enumerate(flat)
    )
    return _traced(tf, concretes[0], inputs, [])


def _with_layers(tf: Any, network: Network, path: Path) -> Network:
    """Return a Keras-2 model that loops over time with its layers, where they can be made again from its files."""
    function = network.function
    if not (path / "keras_metadata.pb").is_file() or not any(
        one.startswith("TensorList") for one in function.operators
    ):
        return network
    import tf_keras

    try:
        model = tf_keras.models.load_model(path, compile=False)
        taken, given = list(model.input_names), list(model.output_names)
    except Exception:  # noqa: BLE001 - layers of classes that are not here: its functions still answer
        return network
    single = len(given) == len(function.outputs) == 1
    if set(taken) != {spec.name for spec in function.inputs} or not (
        single or set(given) == {spec.name for spec in function.outputs}
    ):
        return network

    _without_fused(model)

    def anew(tensors: Sequence[Any]) -> list[Any]:
        by_name = dict(zip((spec.name for spec in function.inputs), tensors, strict=True))
        found = tf.nest.flatten(
            model([by_name[name] for name in taken] if len(taken) > 1 else tensors[0], training=False)
        )
        answered = dict(zip(given, found, strict=True))
        return found if single else [answered[spec.name] for spec in function.outputs]

    functions = {**network.functions, network.served: replace(function, anew=anew)}
    return replace(network, functions=functions, estimator=type(model).__name__)


def _signature_function(concrete: Any) -> Function:
    _, named = concrete.structured_input_signature
    inputs = tuple(_spec(name, spec.dtype.name, spec.shape) for name, spec in named.items())
    found = concrete.structured_outputs
    plain = len(found) == 1 and next(iter(found)).startswith("output_")
    outputs = tuple(_spec("prediction" if plain else name, spec.dtype.name, spec.shape) for name, spec in found.items())

    def call(given: Any) -> Any:
        answered = concrete(**{spec.name: tensor for spec, tensor in zip(inputs, given, strict=True)})
        return [answered[name] for name in found]

    return Function(inputs, outputs, call, operators=_operators(concrete))


def _spec(name: str, kind: str, shape: Any) -> TensorSpec:
    if kind not in networks.KINDS:
        raise Refused(f"the tensor {name} is {kind}, which no target takes", "Cast it inside the model.")
    open_rank = getattr(shape, "rank", 0) is None
    sizes = (-1,) if open_rank else tuple(-1 if size is None else int(size) for size in shape)
    return TensorSpec(name=name, datatype=networks.KINDS[kind], shape=sizes)


def _kind(tf: Any, datatype: str) -> Any:
    return tf.string if datatype == "BYTES" else NUMPY[datatype]


def _bytes(array: Array) -> Array:
    """Return an array as TensorFlow takes it; a missing text is empty."""
    if array.dtype != object:
        return array
    return text(["" if item is None else item for item in array.ravel()], array.shape)


def _array(tensor: Any) -> Array:
    array = np.asarray(tensor.numpy())
    if array.dtype != object:
        return array
    return text([item.decode() for item in array.ravel()], array.shape)
