"""Convert: the copy of a model in a portable format, written in a worker process and checked on the host."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive, extras, originals, pickles, served
from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, Refused, did_you_mean
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Format
from modelrel.measured import Units
from modelrel.originals import Wanted
from modelrel.probes import calibration, rows
from modelrel.probes.generated import Maker
from modelrel.registry import mlmodel
from modelrel.serving import adapters
from modelrel.steps import grounds
from modelrel.tensors import Array
from modelrel.values import ConvertedModel, ConvertOptions, EnvChoice, Interface, Signature, SourceModel, specs

_SMALLER: Final = ("onnx", "tflite")
LARGEST_COPY: Final = 2**31 - 1
"""Bytes of a file that is handed in: no protobuf message can be larger."""


def convert(
    source: SourceModel,
    format: str,  # noqa: A002 - the word of this trade
    options: ConvertOptions,
    note: Callable[[str], None] = lambda _: None,
    begun: Callable[[SourceModel], object] = lambda _: None,
) -> ConvertedModel:
    """Write `<release>/<format>/<place>/model.*` and its `hints.json`, and return what was written.

    Equal inputs give equal bytes. `begun` is called when the model is loading. Raises `Refused` where loading the model
    would run what was not allowed, it has no exact copy, breaks the limits or has no signature, `Invalid` for a damaged
    model file, `Unavailable` for a missing library.
    """
    with _made(source, format, options, note, begun) as copy:
        content = copy.path.read_bytes()
    into = source.folder / format / options.place
    target, hints, adapter = (into / name for name in (copy.path.name, "hints.json", adapters.FILE))
    archive.write(target, content)
    archive.write(hints, (json.dumps(copy.said["hints"], indent=1, sort_keys=True) + "\n").encode())
    written = replace(_described(source, format, copy.said, (target, hints)), served=options.signature)
    adapter.unlink(missing_ok=True)
    if said := _adapter(copy.said, written, options.interface):
        archive.write(adapter, said)
    converted = replace(
        written,
        handed_in=copy.handed_in,
        adapter=archive.describe(adapter, source.folder) if said else None,
        interface=options.interface,
        quantize="" if options.quantize == "none" else options.quantize,
        tool=_tool(format, options),
        allowed_pickle=copy.admitted.allowed,
        notes=(*written.notes, *copy.admitted.notes),
    )
    if copy.own is None:
        return converted
    done = "fitted" if copy.handed_in else "converted"
    where = f"{done} in {originals.described(copy.own, (*originals.LIBRARIES.values(), *FORMATS[format].WRITERS))}"
    return replace(converted, tools=copy.used, notes=(*converted.notes, where))


def tried(
    source: SourceModel,
    format: str,  # noqa: A002
    options: ConvertOptions,
    note: Callable[[str], None] = lambda _: None,
) -> str:
    """Convert for a look, leaving nothing behind, and return the estimator; raises as `convert` does."""
    with _made(source, format, options, note) as copy:
        FORMATS[format].load(copy.path)
        return str(copy.said["estimator"])


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy in a temporary folder: what the worker said of it, and what wrote it."""

    path: Path
    said: Mapping[str, Any]
    own: Wanted | None
    used: dict[str, str]
    handed_in: str
    admitted: pickles.Admitted


@contextmanager
def _made(
    source: SourceModel,
    format: str,  # noqa: A002
    options: ConvertOptions,
    note: Callable[[str], None],
    begun: Callable[[SourceModel], object] = lambda _: None,
) -> Iterator[_Copy]:
    room = possible(source, format, options.signature)
    if options.quantize not in ("", "none") and format not in _SMALLER:
        raise Invalid(f"a {format} copy cannot be made smaller", f"--quantize is for {' and '.join(_SMALLER)}.")
    tool = _tool(format, options)
    signature = signed(source, options.signature)
    admitted = pickles.admit(source.label, source.flavor, grounds.pickled(source), options.allow_pickle)
    own = environment(source, format, options.env, tool)
    python = str(originals.ready(own, note)) if own else ""
    used = originals.installed(own, room.TOOLS) if own else tools(format)
    limits = Limits(seconds=options.seconds, memory_bytes=options.memory_bytes)
    note(f"loading {source.label} ({source.flavor}) in a worker process")
    with tempfile.TemporaryDirectory(prefix="modelrel-convert-") as work, Worker(source, limits, python) as worker:
        worker.start()  # it loads while the rows are read
        begun(source)
        example, rounded = _rows(replace(source, signature=signature), options, note)
        path = Path(work) / f"model{room.SUFFIX}"
        given, handed_in = _taken(options, Path(work) / f"given{room.SUFFIX}")
        reply = worker.call(
            "convert",
            example,
            flavor=source.flavor,
            format=format,
            path=str(path),
            copy=given,
            opset=options.opset,
            operators=options.operators,
            signature=asdict(signature),
            metadata=room.metadata(source, used),
            quantize=options.quantize if options.quantize != "none" else "",
            tool=tool,
        )
        if not path.is_file() or path.is_symlink():
            raise Refused("the worker wrote no model", "The model writes to the worker's own channel.")
        worker.close()  # from here on the file cannot change
        note(f"checking model{room.SUFFIX} ({path.stat().st_size:,} bytes)")
        room.check(path)
        if handed_in:
            room.load(path)  # it would stand as the user's own; one of ours is loaded by `verify`, once
        said = {**reply.value, "notes": [*reply.value["notes"], *rounded]}
        yield _Copy(path, said, own, used, handed_in, admitted)


def _rows(
    source: SourceModel, options: ConvertOptions, note: Callable[[str], None]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the rows that the worker gets, and what a person should know about how the copy is made smaller."""
    assert source.signature is not None
    if options.quantize == "int8":
        found, said = calibration.found(source, options.data, options.label)
        return found, (f"made smaller by int8, {said}",)
    example = _example(source, note)
    if example is None:
        example = dict(Maker(source.signature, None, {}, 0).usual(1)[0].rows)
    exact = options.quantize in ("", "none")
    return example, () if exact else (f"made smaller by {options.quantize}: its weights are rounded",)


def _adapter(said: Mapping[str, Any], written: ConvertedModel, interface: Interface) -> bytes:
    """Return the content of the adapter's file, "" where there is none; raises `Invalid` for an odd interface."""
    served.checked(interface, replace(written.signature, inputs=written.inputs), written.outputs)
    own = said.get("adapter")
    if own and interface.image:
        raise Invalid("a model of text takes no images", "Leave out image in [interface].")
    content = served.adapter(interface, written.inputs) if interface.image else own
    return (json.dumps(content, ensure_ascii=False, sort_keys=True) + "\n").encode() if content else b""


def _taken(options: ConvertOptions, path: Path) -> tuple[str, str]:
    """Put the file that was handed in at `path`, where it cannot change; return that and its sha256 (or "", "").

    Raises `Invalid` where it is no file or too big, or an opset is asked for, which the file has already.
    """
    if options.copy is None:
        return "", ""
    if options.quantize not in ("", "none"):
        raise Invalid(f"{options.copy} is taken as it is", "Leave out --quantize, or convert without --copy.")
    if options.opset:
        raise Invalid(f"{options.copy} has its opset already", "Leave out --opset, or convert without --copy.")
    if not options.copy.is_file():
        raise Invalid(f"the copy {options.copy} does not exist", "Check --copy.")
    if (found := options.copy.stat().st_size) > LARGEST_COPY:
        raise Invalid(
            f"the copy {options.copy} has {found:,} bytes, and a copy can have {LARGEST_COPY:,}",
            "Hand in one file without external data, below 2 GB.",
        )
    with archive.translated(options.copy):
        shutil.copyfile(options.copy, path)
    return str(path), archive.sha256(path)


def _tool(format: str, options: ConvertOptions) -> str:  # noqa: A002
    """Return what is to write the copy instead of modelrel, or ""; raises `Invalid` where it cannot."""
    if options.tool in ("", "none"):
        return ""
    if format != "pmml":
        raise Invalid(f"{options.tool} writes pmml, and not {format}", "Leave out --with, or choose --to pmml.")
    if options.copy is not None:
        raise Invalid(f"{options.copy} is taken as it is", "Leave out --with, or convert without --copy.")
    return options.tool


def environment(source: SourceModel, format: str, choice: EnvChoice, tool: str = "") -> Wanted | None:  # noqa: A002
    """Return the environment in which the copy is written, `tool` beside it, or None for the one that runs modelrel.

    A scikit-learn pickle is read by the version that wrote it only, so the format's writers go there. The files of
    the boosters are read by newer versions, and the copy is compared with the recorded one's answers anyway.
    """
    library = originals.LIBRARIES.get(source.flavor)
    needed = source.flavor in ("sklearn", "pyfunc") or format == "python"
    if not needed and (library is None or extras.version(library)):
        return None
    here = extras.versions(*FORMATS[format].WRITERS, *([tool] if tool else []))
    return originals.wanted(source, choice, tuple(f"{name}<={version}" for name, version in here.items()))


def _example(source: SourceModel, note: Callable[[str], None]) -> dict[str, Array] | None:
    """Return the logged rows; rows that do not fit the signature are noted, and not used."""
    try:
        return rows.example(source)
    except Invalid as error:
        note(f"the input example is not used: {error.message}")
        return None


def of(name: str) -> Format:
    """Return the module of a format; raises `Invalid`, naming the nearest, where there is none of this name."""
    if name in FORMATS:
        return FORMATS[name]
    hint = f"{did_you_mean(name, FORMATS)}Formats: {', '.join(sorted(FORMATS))}."
    raise Invalid(f"there is no format {name!r}", hint)


def possible(source: SourceModel, format: str, served: str = "") -> Format:  # noqa: A002
    """Return the format's module; raises `Refused` (or `Invalid`) where the model cannot become that."""
    room = of(format)
    if source.flavor not in FLAVORS or source.flavor not in room.FLAVORS:
        able = sorted(name for name, other in FORMATS.items() if source.flavor in other.FLAVORS)
        ways = f"It can become {', '.join(able)}." if able else f"{format} takes {', '.join(sorted(room.FLAVORS))}."
        raise Refused(f"a model of flavor {source.flavor} cannot become {format}", ways)
    if not served and source.signature is None and source.signatures:
        said = "; ".join(f"{name}({_inputs(one)})" for name, one in source.signatures.items())
        raise Refused(
            f"{source.label} has {len(source.signatures)} signatures, and none is the default: {said}",
            "Choose one with --signature.",
        )
    if not served and (source.signature is None or not source.signature.inputs):
        raise Refused(
            f"nothing says what goes into {source.label}: {mlmodel.read(source.model_dir).problem or 'no inputs'}",
            "Log it again with signature=mlflow.models.infer_signature(X, model.predict(X)), X being an array or a "
            "data frame of numbers and text.",
        )
    return room


def _inputs(signature: Signature) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in signature.inputs)


def signed(source: SourceModel, served: str) -> Signature:
    """Return the signature that is served; raises `Invalid` where the model has none of this name."""
    if not served:
        assert source.signature is not None  # `possible` saw to it
        return source.signature
    if served not in source.signatures:
        known = ", ".join(source.signatures) or "none: only a SavedModel has several"
        near = did_you_mean(served, source.signatures)
        raise Invalid(f"{source.label} has no signature {served!r}", f"{near}It has {known}.")
    return source.signatures[served]


def at_hand(source: SourceModel, format: str, choice: EnvChoice) -> bool:  # noqa: A002
    """Return whether the environment in which the copy is written is there, and not still to be made."""
    own = environment(source, format, choice)
    return own is None or own.made


def tools(format: str) -> dict[str, str]:  # noqa: A002
    """Return the versions of the packages that decide what a format's files are; nothing is imported."""
    return extras.versions(*FORMATS[format].TOOLS)


def _described(source: SourceModel, name: str, said: Mapping[str, Any], written: tuple[Path, Path]) -> ConvertedModel:
    file, hints = (archive.describe(path, source.folder) for path in written)
    return ConvertedModel(
        source=source,
        format=name,
        file=file,
        inputs=specs(said["inputs"]),
        outputs=specs(said["outputs"]),
        predict=str(said["predict"]),
        classes=tuple(said["classes"]),
        opsets=dict(said["opsets"]),
        estimator=str(said["estimator"]),
        tools=tools(name),
        hints=hints,
        notes=tuple(said["notes"]),
        exact_size=int(said.get("exact_size", 0)),
        units=tuple(Units(**unit) for unit in said.get("units", ())),
    )
