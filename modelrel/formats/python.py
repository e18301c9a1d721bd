"""python: the model as it is, its folder in one zip, run in a process of its own, in its own environment."""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive
from modelrel.errors import Invalid, Refused
from modelrel.formats import onnx, origin, tflite
from modelrel.formats.faults import Fault
from modelrel.formats.order import Order
from modelrel.tensors import Array, Predict, Tensors, rows
from modelrel.values import EnvChoice, SourceModel, signature

SUFFIX: Final = ".zip"
FLAVORS: Final = onnx.FLAVORS | tflite.FLAVORS  # all that a worker loads
TOOLS: Final[tuple[str, ...]] = ()
WRITERS: Final = ("PyYAML",)
RUNTIMES: Final = ("numpy",)
SECOND: Final = ""
KNOWN_BAD: Final[tuple[Fault, ...]] = ()

DESCRIPTION: Final = "modelrel-origin.json"
"""The entry beside the model's own files that says how it is run: flavor, signature, example, origin."""

_PYTHON: Final = "modelrel.python"
_REQUIREMENTS: Final = "modelrel.requirements"
_EXAMPLE: Final = "modelrel.input_example"

_FOLDER: Final = "model/"
_SAID_BY_MLFLOW: Final = ("MLmodel", "python_env.yaml")
"""Files that say which environment a model wants."""

_MOST_FILES: Final = 100_000
_MOST_BYTES: Final = 64 * 2**30
_MOST_SAID: Final = 2**24  # bytes of the description
_TIMES: Final = 2000
"""How many times smaller than its content an entry may be: deflate does 1032 at most (zlib.net/zlib_tech.html)."""

_HINT: Final = "Convert it again: modelrel convert MODEL --to python --force."


def metadata(source: SourceModel, tools: Mapping[str, str]) -> dict[str, str]:
    """Return where the model comes from, and what its environment is made of."""
    return {
        **origin.metadata(source, tools),
        _PYTHON: source.python_version,
        _REQUIREMENTS: "\n".join(source.requirements),
        _EXAMPLE: source.input_example,
    }


def convert(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Pack the folder of the model into `path`; the bytes depend on the folder and the order alone.

    Raises `Refused` for a model that answers no row, or answers what no target gives.
    """
    del native
    missing = [name for name in order.answers.outputs if name not in order.shapes]
    if missing:
        raise Refused(
            f"{order.answers.estimator} answers no row at hand with {', '.join(missing)}",
            "Log it with an input example that it answers (input_example=...).",
        )
    said = {
        "flavor": order.flavor,
        "signature": asdict(order.signature),
        "metadata": dict(order.metadata),
        "outputs": list(order.answers.outputs),
    }
    with tempfile.TemporaryDirectory() as work:
        description = Path(work) / DESCRIPTION
        description.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
        files = [
            (_FOLDER + file.relative_to(order.folder).as_posix(), file)
            for file in archive.walk(order.folder)
            if "__pycache__" not in file.parts  # what importing the model's code left there
        ]
        archive.write_zip(path, [*files, (DESCRIPTION, description)])
    return {
        "inputs": [asdict(spec) for spec in order.signature.inputs],
        "outputs": [asdict(replace(order.shapes[name], name=name)) for name in order.answers.outputs],
        "predict": order.answers.predict,
        "classes": list(order.answers.classes),
        "opsets": {},
        "estimator": order.answers.estimator,
        "notes": ["the model as it is, in its own environment"],
        "hints": {},
    }


def adopt(native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
    """Raise `Refused`: the model as it is cannot be another file."""
    del native, given, path
    raise Refused(
        f"{order.answers.estimator} as it is cannot be handed in as a file", "Leave out --copy, or convert to onnx."
    )


def check(path: Path) -> None:
    """Raise `Refused` where the file is no zip of a model, or an entry would leave the folder it is unpacked into."""
    with _opened(path) as packed:
        _described(packed)


def suspicions(path: Path) -> tuple[str, ...]:
    """Return nothing: it runs the libraries that it was trained with."""
    del path
    return ()


def load(path: Path, seconds: float = 600.0, memory_bytes: int = 0, env: EnvChoice = "auto") -> Predict:
    """Return the model, unpacked and loaded anew in a worker process, in its own environment.

    The process starts with the first rows, and ends with what is returned here; the limits and `env` are as those
    of the original, whose code it is. Raises `Refused` for a file that is
    no model, `Unavailable` where its environment cannot be made, and for rows that it does not answer.
    """
    # Here, for convert runs in environments that cannot make others.
    from modelrel import originals
    from modelrel.environments import Limits, Worker

    work = Path(tempfile.mkdtemp(prefix="modelrel-python-"))
    try:
        source, outputs = _unpacked(path, work)
        own = originals.wanted(source, env)
        limits = Limits(seconds=seconds, memory_bytes=memory_bytes)
        worker = Worker(source, limits, python=str(originals.ready(own)) if own else "")
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    signature = asdict(source.signature) if source.signature else None

    def predict(tensors: Tensors) -> dict[str, Array]:
        reply = worker.call("predict", tensors, signature=signature)
        if len(reply.value["kept"]) != rows(tensors):
            said = "; ".join(reply.value["raised"])[:300]
            raise Refused(
                f"the packed model raises on {rows(tensors) - len(reply.value['kept']):,} of {rows(tensors):,} rows, "
                f"which the original answers: {said}",
                "It depends on something outside of its folder; log it with its code and artifacts.",
            )
        return {name: reply.arrays[name] for name in outputs}

    weakref.finalize(predict, _ended, worker, work)
    return predict


def interpreter(path: Path) -> str:
    """Return the interpreter that a server runs the packed model by, with MLflow; "" where this one will do.

    Its environment is made now, or taken from the cache. Raises `Refused` for a file that is no model, `Unavailable`
    where the environment cannot be made.
    """
    # Here, as in `load`.
    from modelrel import originals

    with tempfile.TemporaryDirectory(prefix="modelrel-python-") as work, _opened(path) as packed:
        said = _described(packed)
        top = Path(work, "source")
        top.mkdir()
        for name in _SAID_BY_MLFLOW:
            if _FOLDER + name in packed.namelist():
                (top / name).write_bytes(packed.read(_FOLDER + name))
        source = _source(Path(work), path.stem, said)
        # The environment of an original has what its own library needs; a server loads every model by MLflow.
        pinned = [line for line in source.requirements if line.partition("==")[0].strip() == "mlflow"]
        own = originals.wanted(source, "auto", () if source.flavor == "pyfunc" else (*(pinned or ["mlflow"]),))
    return str(originals.ready(own)) if own else ""


def reference(path: Path) -> Predict | None:
    """Return None: nothing but the model itself runs it."""
    del path
    return None


def _ended(worker: Any, work: Path) -> None:
    worker.close()
    shutil.rmtree(work, ignore_errors=True)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        packed = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused(f"{path.name} is no zip of a model: {error}", _HINT) from error
    try:
        _safe(packed, path)
    except BaseException:
        packed.close()
        raise
    return packed


def _safe(packed: zipfile.ZipFile, path: Path) -> None:
    """Raise `Refused` for entries that leave the folder, stand twice, are no files, or are larger than they can be."""
    entries = packed.infolist()
    names = {entry.filename for entry in entries}
    size = sum(entry.file_size for entry in entries)
    if len(names) != len(entries) or len(entries) > _MOST_FILES or size > _MOST_BYTES:
        raise Refused(f"{path.name} holds {len(entries):,} entries, {len(names):,} names, {size:,} bytes", _HINT)
    for entry in entries:
        if entry.filename == DESCRIPTION and entry.file_size > _MOST_SAID:
            raise Refused(f"{path.name} says in {entry.file_size:,} bytes how its model is run", _HINT)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        inside = entry.filename == DESCRIPTION or entry.filename.startswith(_FOLDER)
        if not inside or entry.is_dir() or kind not in (0, stat.S_IFREG) or "\\" in entry.filename:
            raise Refused(f"{path.name} holds {entry.filename!r}, which is no file of a model", _HINT)
        if entry.file_size > _TIMES * max(entry.compress_size, 1):
            raise Refused(
                f"{path.name} holds {entry.filename!r}, {entry.compress_size:,} bytes that claim to be "
                f"{entry.file_size:,}",
                _HINT,
            )
        try:
            archive.within(Path("/unpacked"), entry.filename)
        except Invalid as error:
            raise Refused(f"{path.name}: {error.message}", _HINT) from error


def _described(packed: zipfile.ZipFile) -> dict[str, Any]:
    """Return how the model in a zip is run."""
    try:
        said = dict(json.loads(packed.read(DESCRIPTION)))
        packed.getinfo(f"{_FOLDER}MLmodel")
        signature(said["signature"])
        said["outputs"] = [str(name) for name in said["outputs"]]
        said["metadata"] = dict(said["metadata"])
        said["flavor"] = {name: name for name in FLAVORS}[said["flavor"]]
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, EOFError, OSError, RecursionError) as error:
        raise Refused(f"{packed.filename} does not say how its model is run: {error}", _HINT) from error
    return said


def _unpacked(path: Path, work: Path) -> tuple[SourceModel, list[str]]:
    """Unpack a model into `work`, and return what running it takes, and what it answers."""
    with _opened(path) as packed:
        said = _described(packed)
        for entry in packed.infolist():
            name = entry.filename.removeprefix(_FOLDER)
            target = archive.within(work / "source", name) if name != entry.filename else work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with packed.open(entry) as stream, target.open("wb") as file:
                    shutil.copyfileobj(stream, file)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
                raise Refused(f"{path.name} is damaged: {error}", _HINT) from error
    return _source(work, path.stem, said), said["outputs"]


def _source(work: Path, name: str, said: Mapping[str, Any]) -> SourceModel:
    known = said["metadata"]
    return SourceModel(
        folder=work, name=name, version="", uri="", registry="", flavors=(), flavor=str(said["flavor"]),
        signature=signature(said["signature"]), python_version=str(known.get(_PYTHON, "")),
        requirements=tuple(str(known.get(_REQUIREMENTS, "")).splitlines()),
        input_example=str(known.get(_EXAMPLE, "")),
    )  # fmt: skip
