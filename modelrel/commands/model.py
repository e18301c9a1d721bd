"""Commands about the model: pull, inspect, convert, verify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelrel.commands.call import Model, call, shared
from modelrel.quantities import size

if TYPE_CHECKING:
    from modelrel.measured import Quantize as QuantizeMode
    from modelrel.steps.release import Release, ReleaseOptions
    from modelrel.values import ConvertOptions, EnvChoice, Interface, Operators, VerifyOptions

To = Annotated[
    str, typer.Option("--to", metavar="FORMAT", help="The format of the copy: onnx, tflite, pmml or python.")
]
Force = Annotated[bool, typer.Option("--force", help="Do it again, even if it is up to date.")]
Opset = Annotated[int | None, typer.Option(metavar="N", help="The ONNX opset (the newest that works).")]
OperatorsOption = Annotated[
    str | None, typer.Option("--operators", metavar="WHICH", help="What trees are written with: v5, v3 or core.")
]
SignatureOption = Annotated[
    str | None, typer.Option("--signature", metavar="NAME", help="The signature of a SavedModel to serve.")
]
Copy = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Take this copy, converted elsewhere, instead of converting.")
]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Time limit of the work on the model (600).")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory limit of that work: 4GB (80 % of the machine's).")
]
Env = Annotated[
    str | None,
    typer.Option("--env", metavar="WHICH", help="Where the original runs: auto, current, or model (its own)."),
]
Data = Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to compare on: csv, parquet, json, npy or npz.")]
Quantize = Annotated[
    str | None,
    typer.Option("--quantize", metavar="MODE", help="Make the copy smaller: float16, dynamic or int8; none: do not."),
]
With = Annotated[
    str | None,
    typer.Option("--with", metavar="TOOL", help="Let sklearn2pmml write the PMML copy (AGPL-3.0); none: modelrel."),
]
AllowPickle = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOBAL", help="Let its pickles ask for this (or: what a file asks for); repeat it."),
]
Label = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of --data with the right answers.")]
Agreement = Annotated[
    float | None, typer.Option(metavar="X", help="Least share of labels that a smaller copy shares (by mode).")
]
MaxError = Annotated[float | None, typer.Option(metavar="X", help="Most that a number of it may be off (by mode).")]
MeanError = Annotated[float | None, typer.Option(metavar="X", help="Most that they may be off on average (by mode).")]
Drop = Annotated[float | None, typer.Option(metavar="X", help="Most that accuracy, F1 or R² may fall (by mode).")]
Rtol = Annotated[float | None, typer.Option(metavar="X", help="Relative tolerance of numbers (1e-4).")]
Atol = Annotated[float | None, typer.Option(metavar="X", help="Absolute tolerance of numbers (1e-5).")]
Rows = Annotated[int | None, typer.Option(metavar="N", help="How many rows to generate at least (1000).")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of the generated rows (0).")]

Budget = Annotated[
    float | None, typer.Option(metavar="S", help="Seconds for asking the original, where errors are likeliest (10).")
]

Quick = Annotated[bool, typer.Option("--quick", help="Do not load the model: what it can become is left open.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (pull, inspect, convert, verify):
        app.command()(shared(command))


def check_env(name: str) -> EnvChoice:
    """Return the choice of an environment; raises `Invalid` where there is none of this name."""
    from modelrel.errors import Invalid

    if name not in ("auto", "current", "model"):
        raise Invalid(f"there is no environment {name!r}", "Choose auto, current (modelrel's own) or model (its own).")
    return name  # type: ignore[return-value]  # narrowed by the tuple above


def check_operators(name: str) -> Operators:
    """Return the choice of tree operators; raises `Invalid` where there are none of this name."""
    from modelrel.errors import Invalid

    if name not in ("v5", "v3", "core"):
        raise Invalid(
            f"there are no operators {name!r}",
            "Choose v5 (ai.onnx.ml 5), v3 (older runtimes) or core (ai.onnx alone, without ai.onnx.ml).",
        )
    return name  # type: ignore[return-value]  # narrowed by the tuple above


def check_tool(name: str) -> str:
    """Return what is to write the copy; raises `Invalid` where modelrel knows no tool of this name."""
    from modelrel.errors import Invalid

    if name not in ("", "none", "sklearn2pmml"):
        raise Invalid(f"modelrel converts with no tool {name!r}", "Choose sklearn2pmml (pmml only), or none.")
    return name


def check_quantize(name: str) -> QuantizeMode:
    """Return the mode in which a copy is made smaller; raises `Invalid` where there is none of this name."""
    from modelrel.errors import Invalid

    if name not in ("", "none", "float16", "dynamic", "int8"):
        raise Invalid(
            f"there is no mode {name!r} to make a copy smaller",
            "Choose float16 (weights of 16 bits), dynamic (weights of 8 bits), int8 (all of it) or none.",
        )
    return name  # type: ignore[return-value]  # narrowed by the tuple above


def loss_budget(pick: Callable[[str, Any], Any]) -> dict[str, float]:
    """Return what the user says that a smaller copy may lose; raises `Invalid` for a number that is none of these."""
    from modelrel.errors import Invalid

    found = {name: pick(name, None) for name in ("agreement", "max_error", "mean_error", "drop")}
    for name, value in found.items():
        if value is not None and not (0 <= value <= 1 if name == "agreement" else 0 <= value < float("inf")):
            option = f"--{name.replace('_', '-')}"
            limits = "from 0 to 1" if name == "agreement" else "of 0 or more"
            raise Invalid(f"{option} is {value:g}, not a number {limits}", "Leave it out for the mode's own budget.")
    return {name: value for name, value in found.items() if value is not None}


def convert_options(given: dict[str, Any]) -> ConvertOptions:
    """Return the options of a conversion, settings included."""
    from modelrel.values import ConvertOptions

    pick = call().settings.pick
    limit = pick("release", "memory", given.get("memory"), "")
    return ConvertOptions(
        opset=pick("release", "opset", given.get("opset"), 0),
        operators=check_operators(pick("release", "operators", given.get("operators"), "v5")),
        seconds=pick("release", "seconds", given.get("seconds"), 600.0),
        env=check_env(pick("release", "env", given.get("env"), "auto")),
        memory_bytes=size(limit, "--memory") if limit else 0,
        copy=given.get("copy"),
        quantize=check_quantize(pick("release", "quantize", given.get("quantize"), "")),
        signature=pick("release", "signature", given.get("signature"), ""),
        tool=check_tool(given.get("tool") or ""),
        interface=interface(),
        allow_pickle=tuple(pick("release", "allow_pickle", given.get("allow_pickle"), [])),
    )


def interface() -> Interface:
    """Return how the model is served; raises `Invalid` where an output is named twice."""
    from modelrel.errors import Invalid
    from modelrel.values import Interface

    pick = call().settings.pick
    outputs: dict[str, str] = {}
    chosen: list[str] = []
    for text in pick("interface", "outputs", None, chosen):
        served, _, own = text.partition("=")
        if not served.strip() or served.strip() in outputs:
            raise Invalid(
                f"[interface] outputs has {text!r}, which is named twice or not at all",
                'Write outputs = ["NEW=OLD", ...], each NEW once.',
            )
        outputs[served.strip()] = (own or served).strip()
    return Interface(
        outputs=outputs,
        pass_through=tuple(pick("interface", "pass_through", None, [])),
        image=pick("interface", "image", None, ""),
        resize=pick("interface", "resize", None, "bilinear"),
        scale=pick("interface", "scale", None, "1"),
        offset=pick("interface", "offset", None, "0"),
    )


def verify_options(given: dict[str, Any], convert: ConvertOptions) -> VerifyOptions:
    """Return the options of a verification, settings included.

    Raises `Invalid` for a data file that does not exist or a tolerance below zero.
    """
    from modelrel.errors import Invalid
    from modelrel.measured import Tolerance
    from modelrel.values import VerifyOptions

    def pick(key: str, default: Any) -> Any:
        return call().settings.pick("verify", key, given.get(key), default)

    tolerance = Tolerance(rtol=pick("rtol", 1e-4), atol=pick("atol", 1e-5))
    if not (tolerance.rtol >= 0 and tolerance.atol >= 0):
        raise Invalid("a tolerance cannot be below zero", "Give --rtol and --atol as 0 or more.")
    data = str(pick("data", "") or "")
    if data and not Path(data).is_file():
        raise Invalid(f"the data file {data} does not exist", "Check --data.")
    if pick("label", "") and not data:
        raise Invalid(f"--label names a column of no file: {pick('label', '')}", "Give the rows by --data FILE.")
    rows = pick("rows", 1000)
    if rows < 1:
        raise Invalid(f"--rows is {rows}, but at least 1 row is needed", "Leave it out for 1000.")
    spend = pick("budget", 10.0)
    if not 0 <= spend < float("inf"):
        raise Invalid(f"--budget is {spend:g}, not a number of seconds", "Give 0 or more; leave it out for 10.")
    return VerifyOptions(
        tolerance=tolerance,
        rows=rows,
        seed=pick("seed", 0),
        budget=spend,
        data=Path(data) if data else None,
        label=pick("label", ""),
        loss=loss_budget(pick),
        seconds=convert.seconds,
        memory_bytes=convert.memory_bytes,
        env=convert.env,
    )


def options(to: str = "onnx", force: str = "", **given: Any) -> ReleaseOptions:
    """Return the options of a release; `force` names the stage to do again ("" none)."""
    from modelrel.steps.convert import of
    from modelrel.steps.release import ReleaseOptions

    of(to)
    if to == "pmml":  # as a setting it is about PMML copies only; on the command line it is refused for others
        given["tool"] = call().settings.pick("release", "with", given.get("tool"), "")
    convert = convert_options(given)
    verify = verify_options(given, convert)
    return ReleaseOptions(
        format=to,
        convert=replace(convert, data=verify.data, label=verify.label),
        verify=verify,
        force=frozenset(force.split()),
    )


def results(release: Release) -> list[dict[str, Any]]:
    """Return the stages that were passed, for `--json`."""
    from modelrel.show import as_json

    return [as_json(result) for result in release.results]


def pull(model: Model, force: Force = False) -> None:
    """Fetch a version from the registry into the release folder."""
    from modelrel.show import as_json

    with call().release(model, options(force="pull" if force else "")) as release:
        source = release.source()
        call().result({"source": as_json(source), "folder": str(release.folder), "stages": results(release)})


def inspect(model: Model, quick: Quick = False) -> None:
    """Show what a model is: flavor, signature, size, lineage, what loading it runs, what it can become, tried out."""
    from modelrel.pickles import worst
    from modelrel.show import as_json, source_table
    from modelrel.steps.grounds import pickled
    from modelrel.steps.inspect import sentence

    with call().release(model, options()) as release:
        source, can = release.source(), release.possible(quick=quick)
        found = pickled(source)
        call().result(
            {
                "source": {**as_json(source), "sha256": source.digest},
                "formats": {form: as_json(verdict) for form, verdict in can.items()},
                "pickle": {"verdict": worst(found), "files": [as_json(one) for one in found]},
                "stages": results(release),
            },
            source_table(source, {form: sentence(verdict) for form, verdict in can.items()}, found),
        )


def convert(
    model: Model, to: To = "onnx", copy: Copy = None, opset: Opset = None, operators: OperatorsOption = None,
    quantize: Quantize = None, data: Data = None, label: Label = None, agreement: Agreement = None,
    max_error: MaxError = None, mean_error: MeanError = None, drop: Drop = None, seconds: Seconds = None,
    memory: Memory = None, env: Env = None, signature: SignatureOption = None, with_: With = None,
    allow_pickle: AllowPickle = None, force: Force = False,
) -> None:  # fmt: skip
    """Make the copy in another format (or take --copy), and verify that it answers as the original."""
    from modelrel.show import as_json
    from modelrel.show import parity as shown

    asked = options(
        to, "convert verify" if force else "", copy=copy, opset=opset, operators=operators, quantize=quantize,
        data=data, label=label, agreement=agreement, max_error=max_error, mean_error=mean_error, drop=drop,
        seconds=seconds, memory=memory, env=env, signature=signature, tool=with_,
        allow_pickle=allow_pickle,
    )  # fmt: skip
    with call().release(model, asked) as release:
        parity = release.parity()
        call().result(
            {"converted": as_json(parity.converted), "parity": as_json(parity), "folder": str(release.folder),
             "stages": results(release)},
            *shown(parity),
            f"wrote {parity.converted.path}",
        )  # fmt: skip


def verify(
    model: Model, to: To = "onnx", data: Data = None, rtol: Rtol = None, atol: Atol = None, rows: Rows = None,
    seed: Seed = None, budget: Budget = None, label: Label = None, agreement: Agreement = None,
    max_error: MaxError = None, mean_error: MeanError = None, drop: Drop = None, seconds: Seconds = None,
    memory: Memory = None, env: Env = None, force: Force = False,
) -> None:  # fmt: skip
    """Compare the copy with the original again, on your rows and on rows made to find differences."""
    from modelrel.show import as_json
    from modelrel.show import parity as shown

    asked = options(
        to, "verify" if force else "", data=data, rtol=rtol, atol=atol, rows=rows, seed=seed, budget=budget,
        label=label, agreement=agreement, max_error=max_error, mean_error=mean_error, drop=drop,
        seconds=seconds, memory=memory, env=env,
    )  # fmt: skip
    with call().release(model, asked) as release:
        parity = release.parity()
        call().result({"parity": as_json(parity), "stages": results(release)}, *shown(parity))
