"""How a value looks: to a person (rich tables), and to a machine (`--json`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelrel import figures, records
from modelrel.promoted import Verdict
from modelrel.values import ParityReport, Signature, SourceModel

if TYPE_CHECKING:
    from modelrel.pickles import Finding

megabytes: Final = figures.megabytes


def as_json(value: Any) -> Any:
    """Return a value as JSON data: a record's own fields, without the values it was made from."""
    return records.own_fields(value)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Return a table; what stands in brackets in a cell is text, not markup."""
    found = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim", title_style="bold")
    for index, column in enumerate(columns):
        right = column in {"time", "size"}
        found.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        found.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return found


def signature_text(signature: Signature | None) -> str:
    """Return a signature as one line: `age: FP64, city: BYTES → INT64`."""
    if signature is None:
        return "none (log the model with signature=infer_signature(X, y))"
    given = [f"{spec.name}: {spec.datatype}{_shape(spec.shape, signature.kind)}" for spec in signature.inputs]
    shown = given[:12] + ([f"… {len(given) - 12} more"] if len(given) > 12 else [])
    out = ", ".join(f"{spec.datatype}{list(spec.shape)}" for spec in signature.outputs)
    return ", ".join(shown) + (f" → {out}" if out else "")


def _shape(shape: tuple[int, ...], kind: str) -> str:
    return "" if kind == "columns" else str(list(shape))


def source_table(source: SourceModel, possible: Mapping[str, str], findings: Iterable[Finding]) -> Table:
    """Return what `inspect` shows of a model; `possible` is format -> whether it can become that, and why not.

    `findings` is what loading its files would run.
    """
    run = f"{source.run_id} ({source.experiment})" if source.run_id else "none"
    data = ", ".join(f"{one.name} ({one.digest}, {one.context or 'no context'})" for one in source.datasets)
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in sorted(source.metrics.items()))
    rows = [
        ("model", f"{source.label}   {source.uri}"),
        ("flavor", f"{source.flavor} (of {', '.join(source.flavors)})"),
        ("signature", signature_text(source.signature)),
        *((f"signature {name}", signature_text(one)) for name, one in source.signatures.items()),
        ("size", f"{megabytes(sum(file.size for file in source.files))} in {len(source.files)} files"),
        ("trained with", f"Python {source.python_version or '?'}, MLflow {source.mlflow_version or '?'}"),
        ("requirements", ", ".join(source.requirements) or "none logged"),
        ("run", run),
        ("data sets", data or "none logged"),
        ("metrics", metrics or "none logged"),
        ("git commit", source.git_commit or "none logged"),
        ("sha256", source.digest),
        ("pickle verdict", pickles_text(findings)),
        *((f"to {name}", text) for name, text in possible.items()),
    ]
    return table("", ("what", "value"), rows)


def parity(report: ParityReport) -> tuple[RenderableType, ...]:
    """Return what `verify` shows: which rows, one line an output, and what a person should know."""
    rows = [
        (
            output.name,
            f"{output.rows:,}",
            str(output.disagreements),
            f"{output.max_abs_error:.3g}",
            f"{output.max_rel_error:.3g}",
            output.worst_source if output.disagreements or output.max_abs_error else "–",
        )
        for output in report.outputs
    ]
    where = ", ".join(f"{count:,} {name}" for name, count in report.sources.items())
    said = (
        f"{report.rows:,} rows ({where}); one row against batch {report.batch_max_abs_error:.3g}; "
        f"{report.original_us_per_row:.1f} µs a row in the original, {report.copy_us_per_row:.1f} in the copy"
    )
    least = [one for one in report.coverage if one.asked < one.of]
    partly = ", ".join(f"{one.source}: {one.asked:,} of {one.of:,} {one.unit}" for one in least)
    left_out = [f"{one.source}: {one.left_out}" for one in report.coverage if one.left_out]
    counts = f"{report.ties:,} rows with tied votes; {report.labels_alone:,} rows where only the label differs"
    return (
        *(Text(line) for line in _lost(report)),
        Text(said),
        Text(f"covered: {partly or 'everything that was made'}; {counts}"),
        table("", ("output", "rows", "differ", "max abs", "max rel", "worst in"), rows),
        *(Text(f"• {one}") for one in (*report.converted.notes, *report.findings, *left_out)),
    )


def _lost(report: ParityReport) -> list[str]:
    """Return what a smaller copy is judged by: sizes, rows, and each figure with its budget."""
    loss, may = report.loss, report.loss.budget if report.loss else None
    if loss is None or may is None:
        return []
    on = ", ".join(f"{count:,} {name}" for name, count in loss.sources.items())
    size = f"{loss.size:,} bytes, {loss.exact_size:,} without ({loss.size / max(loss.exact_size, 1):.0%})"
    said = [f"{loss.mode}: {size}; judged on {loss.rows:,} rows ({on})"]
    if loss.agreement is not None:
        made = loss.generated_agreement
        also = "" if made is None else f"; on rows made up of them {made:.2%}"
        said.append(f"labels agree on {loss.agreement:.2%} (at least {may.agreement:.2%}){also}")
    for one in loss.outputs:
        of = "" if one.unit == 1 else f" standard deviations of {one.unit:.4g}"
        said.append(
            f"{one.name} is off by up to {one.max_error:.3g} (at most {may.max_error:g}), on average "
            f"{one.mean_error:.3g} ({may.mean_error:g}){of}"
        )
    said += [f"{one.name} {one.original:.4f} → {one.copy:.4f} on {one.rows:,} rows" for one in loss.metrics]
    return said


def verdict_table(verdict: Verdict) -> Table:
    """Return every rule of a verdict, passed or not, with what was found."""
    colours = {"passed": "green", "failed": "red", "missing": "yellow"}
    rows = [
        (rule.name, Text(rule.outcome, colours[rule.outcome]), rule.found, rule.wanted, rule.hint)
        for rule in verdict.rules
    ]
    return table("", ("rule", "outcome", "found", "wanted", "what to do"), rows)


def pickles_text(findings: Iterable[Finding]) -> str:
    """Return what loading a model's files would run, a line a file."""
    said = []
    for one in findings:
        odd = one.worst_names or one.names
        names = f"{', '.join(odd[:6])}{f' and {len(odd) - 6} more' if len(odd) > 6 else ''}"
        said.append(f"{one.verdict}: {one.path.removeprefix('source/')} {'; '.join([*one.why[:3], names]).strip('; ')}")
    return "\n".join(said) or "none: loading it runs no pickle"
