"""Report: one release on one page of HTML that needs nothing beside it - verdict, lineage, proof, figures, parts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from modelrel import __version__, archive, figures, plots, render
from modelrel.delivered import Package, Promotion
from modelrel.measured import OutputParity
from modelrel.promoted import Entry, Rule, Verdict
from modelrel.steps import diff as diff_step
from modelrel.steps import notes as notes_step
from modelrel.steps.facts import Copy, Delivery, Known
from modelrel.targets import bom
from modelrel.values import ParityReport

_KIND: Final = "report"
_STYLE: Final = "report.css"
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was judged, and every rule of it."""

    title: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One station on the way of a release: what it is, and what names it (name, value, whether that is a digest)."""

    name: str
    title: str
    facts: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How a copy was compared: a sentence, where rows come from, and one part for each output."""

    format: str
    said: str
    sources: tuple[tuple[str, str], ...]
    outputs: tuple[Compared, ...]
    speed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One output: its figures, its plots (none for labels), and the rows that are farthest off."""

    parity: OutputParity
    errors: Markup
    pairs: Markup
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What one package is made of."""

    target: str
    total: str
    plot: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One line of the bill of materials, with the targets that carry it."""

    name: str
    version: str
    kind: str
    terms: str
    targets: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that the page shows; the template goes through it and computes nothing."""

    known: Known
    state: str
    good: bool
    style: Markup
    style_sha256: str
    figures: tuple[tuple[str, str], ...]
    judged: tuple[Judged, ...]
    way: tuple[Stop, ...]
    metrics: tuple[tuple[str, str], ...]
    proofs: tuple[Proof, ...]
    latency: Markup
    keys: tuple[tuple[Markup, str], ...]
    sizes: tuple[Sizes, ...]
    components: tuple[Component, ...]
    history: tuple[Entry, ...]
    limits: tuple[str, ...]
    modelrel: str = __version__


def page(known: Known, planned: Promotion | None = None) -> str:
    """Return the report of a release; `planned` is a promotion that was judged and not done, where there is one.

    The bytes depend on the facts alone: no time is taken, and nothing is asked.
    """
    style = (render.templates_dir() / _KIND / _STYLE).read_text(encoding="utf-8")
    judged = (*_gates(known), *_verdicts(known, planned))
    state, good = _state(known, planned, judged)
    made = Page(
        known=known, state=state, good=good, style=Markup(style),  # noqa: S704 - ours
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        figures=tuple(_figures(known)), judged=judged, way=tuple(_way(known)),
        metrics=tuple((name, figures.number(value)) for name, value in sorted(known.source.metrics.items())),
        proofs=tuple(_proof(copy, copy.parity) for copy in known.copies if copy.parity),
        latency=_latency(known), keys=_KEYS if known.smokes else (),
        sizes=tuple(_sizes(one) for one in known.deliveries), components=tuple(_components(known)),
        history=known.history, limits=(*notes_step.limits(known), *known.problems),
    )  # fmt: skip
    return render.page(_KIND, "report.html.j2", {"page": made})


def _state(known: Known, planned: Promotion | None, judged: tuple[Judged, ...]) -> tuple[str, bool]:
    """Return the verdict in a few words, and whether it is a good one."""
    wrong = sum(rule.outcome != "passed" for one in judged for rule in one.rules)
    held = [one.to for one in known.promotions if one.to in known.aliases or one.to == known.stage]
    if planned is not None and planned.verdict.refused:
        return f"would be refused as {planned.to}", False
    if wrong:
        return f"{wrong} {'rule does' if wrong == 1 else 'rules do'} not hold", False
    if held:
        return f"promoted to {', '.join(held)}", True
    return ("proven", True) if known.smokes else ("not proven yet", False)


def _figures(known: Known) -> Iterator[tuple[str, str]]:
    """Yield what a person looks at first: value and what it is."""
    proven = [copy.parity for copy in known.copies if copy.parity]
    if proven:
        yield f"{sum(one.rows for one in proven):,}", "rows compared"
        yield f"{sum(one.disagreements for one in proven):,}", "answers that differ"
        yield f"{max(one.max_abs_error for one in proven):.2g}", "largest error"
    if known.smokes:
        yield figures.seconds(max(one.first_answer_s for one in known.smokes)), "slowest first answer"
        yield figures.text(max(one.p99_ms for one in known.smokes), "ms"), "slowest p99"
    if known.deliveries:
        yield figures.megabytes(max(map(diff_step.delivered_size, known.deliveries))), "largest package"


def _gates(known: Known) -> Iterator[Judged]:
    """Yield the gates that every release passes, whatever the policy."""
    rules = [_parity_rule(copy, copy.parity) for copy in known.copies if copy.parity]
    for one in known.deliveries:
        smoke = one.smoke
        seen = f"{len(smoke.checks)} checks by {smoke.runner}, {smoke.rows:,} rows" if smoke else "not started yet"
        rules.append(Rule(name=f"smoke {diff_step.target_of(one)}", outcome="passed" if smoke else "missing",
                          wanted="the built artifact answers as the copy", found=seen))  # fmt: skip
    if rules:
        yield Judged(title="Gates of the release", rules=tuple(rules))


def _parity_rule(copy: Copy, parity: ParityReport) -> Rule:
    allowed = f"numbers within {parity.tolerance.atol:g} + {parity.tolerance.rtol:g} of the value, labels equal"
    if parity.loss:
        allowed = f"within the budget of {parity.loss.mode}"
    found = f"{parity.disagreements:,} answers differ on {parity.rows:,} rows, largest error {parity.max_abs_error:.2g}"
    return Rule(name=f"parity {copy.converted.format}", outcome="passed", wanted=allowed, found=found)


def _verdicts(known: Known, planned: Promotion | None) -> Iterator[Judged]:
    for one in known.promotions:
        if one.verdict.rules:
            yield Judged(title=f"Policy for {one.to}{_when(one.verdict)}", rules=one.verdict.rules)
    if planned is not None and planned.to not in {one.to for one in known.promotions}:
        yield Judged(title=f"Policy for {planned.to}, not promoted yet", rules=planned.verdict.rules)


def _when(verdict: Verdict) -> str:
    return f", judged {verdict.at[:10]}" if verdict.at else ""


def _way(known: Known) -> Iterator[Stop]:
    """Yield the stations from the training run to whoever points at the version."""
    source = known.source
    yield _stop("Run", source.run_id or "no run", [
        ("experiment", source.experiment), ("author", source.tags.get("mlflow.user", "")),
        ("git commit", source.git_commit), ("logged model", source.model_id),
    ])  # fmt: skip
    if source.datasets:
        title = ", ".join(dict.fromkeys(data.name for data in source.datasets))
        yield _stop("Data", title, [(data.context or "digest", data.digest) for data in source.datasets])
    python = ", ".join(filter(None, (f"Python {source.python_version}" if source.python_version else "",
                                     f"MLflow {source.mlflow_version}" if source.mlflow_version else "")))  # fmt: skip
    yield _stop("Model", f"{source.uri or source.label} ({source.flavor or 'flavor unknown'})", [
        ("registry", source.registry), ("logged with", python), ("loading it runs", known.pickles),
        ("sha256", source.digest if source.files else ""),
    ])  # fmt: skip
    for copy in known.copies:
        tools = ", ".join(f"{name} {version}" for name, version in sorted(copy.converted.tools.items())[:_SHOWN])
        yield _stop("Copy", f"{copy.converted.format}, {copy.converted.estimator or source.flavor}", [
            ("tools", tools if len(tools) <= 2 * _SHOWN else f"{tools[: 2 * _SHOWN]}…"),
            ("size", figures.megabytes(copy.converted.file.size)), ("sha256", copy.converted.file.sha256),
        ])  # fmt: skip
    for one in known.deliveries:
        yield _packaged(one)
    for done in known.promotions:
        yield _stop("Promotion", f"{done.kind} {done.to}", [
            ("by", done.by), ("at", done.at), ("in place of", done.previous or "nobody"), ("why", done.message),
        ])  # fmt: skip


def _stop(name: str, title: str, facts: list[tuple[str, str]]) -> Stop:
    listed = tuple((what, value, len(value) > 20 and " " not in value) for what, value in facts if value)
    return Stop(name=name, title=title, facts=listed)


def _packaged(one: Delivery) -> Stop:
    package, image = one.package, one.package.image
    on = package.platform if package.python in ("", "any") else f"{package.platform}, Python {package.python}"
    return _stop("Package", f"{diff_step.target_of(one)}, {figures.megabytes(diff_step.delivered_size(one))}", [
        ("for", on), ("file", package.artifact), ("sha256 of all files", package.digest),
        ("image", (image.manifest or image.id) if image else ""),
        ("pushed as", f"{one.pushed.name}@{one.pushed.digest}" if one.pushed else ""),
        ("evidence", _signed(one)),
    ])  # fmt: skip


def _signed(one: Delivery) -> str:
    if one.attestation is None:
        return ""
    signed = f"signed by key {one.attestation.key}" if one.attestation.key else "not signed"
    return f"{len(one.attestation.files)} statements of {one.attestation.at[:10]}, {signed}"


def _proof(copy: Copy, parity: ParityReport) -> Proof:
    batches = ", ".join(f"{size:,}" for size in parity.batch_sizes)
    said = (
        f"{parity.rows:,} rows were answered by the original and by the copy, and again in batches of {batches} "
        f"(which changed numbers by {parity.batch_max_abs_error:.2g})."
    )
    counts = {one.source: one for one in parity.coverage}
    sources = tuple(
        (name, f"{count:,}" + (f" ({counts[name].asked:,} of {counts[name].of:,} {counts[name].unit})"
                               if name in counts and counts[name].asked < counts[name].of else ""))
        for name, count in parity.sources.items()
    )  # fmt: skip
    speed = f"{parity.original_us_per_row:.3g} µs a row in the original, {parity.copy_us_per_row:.3g} µs in the copy"
    outputs = tuple(_compared(output, parity) for output in parity.outputs)
    return Proof(format=copy.converted.format, said=said, sources=sources, outputs=outputs, speed=speed)


def _compared(output: OutputParity, parity: ParityReport) -> Compared:
    spread = output.spread
    if spread is None:
        said = f"{output.rows - output.disagreements:,} of {output.rows:,} rows have the same answer"
        said += f"; the largest error is {output.max_abs_error:.2g}." if output.max_abs_error else "."
        return Compared(parity=output, errors=Markup(), pairs=Markup(), said=said)
    said = (
        f"{spread.exact:,} of {output.rows:,} rows have no error at all; the largest is {output.max_abs_error:.2g} "
        f"(relative: {output.max_rel_error:.2g})."
    )
    about = f"{output.name}: {said}"
    errors = plots.histogram(spread.exact, spread.halves, parity.tolerance.atol, about)
    pairs = plots.scatter(spread.pairs, f"{output.name}: {len(spread.pairs)} numbers, picked evenly over all rows")
    # the plots escape what they show
    return Compared(parity=output, errors=Markup(errors), pairs=Markup(pairs), said=said)  # noqa: S704


_KEYS: Final = tuple(
    (Markup(plots.key(kind)), name)  # noqa: S704 - a shape of ours
    for kind, name in enumerate(("p50", "p99", "first answer"))
)


def _latency(known: Known) -> Markup:
    rows = {
        diff_step.target_of(one): [
            plots.Mark(kind=0, value=one.smoke.p50_ms / 1000),
            plots.Mark(kind=1, value=one.smoke.p99_ms / 1000),
            plots.Mark(kind=2, value=one.smoke.first_answer_s),
        ]
        for one in known.deliveries
        if one.smoke
    }
    said = "; ".join(f"{name}: p50 {figures.seconds(a.value)}, p99 {figures.seconds(b.value)}, first answer "
                     f"{figures.seconds(c.value)}" for name, (a, b, c) in rows.items())  # fmt: skip
    return Markup(plots.ranges(rows, said)) if rows else Markup()  # noqa: S704 - as above


def _sizes(one: Delivery) -> Sizes:
    parts = dict(one.package.parts) or {one.package.target: one.package.size}
    total = sum(parts.values())
    plot = plots.bars(parts, f"{diff_step.target_of(one)}: {figures.megabytes(total)} in {len(parts)} parts")
    delivered = diff_step.delivered_size(one)
    said, sent = figures.megabytes(total), figures.megabytes(delivered)
    said += f", delivered as {sent}" if sent != said else ""
    return Sizes(target=diff_step.target_of(one), total=said, plot=Markup(plot))  # noqa: S704 - as above


def _components(known: Known) -> Iterator[Component]:
    """Yield what the packages carry by their bills of materials, each component once, by kind and name."""
    carried: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for one in known.deliveries:
        for component in _billed(one.package):
            key = (str(component.get("type", "")), str(component.get("name", "")), str(component.get("version", "")),
                   _terms(component))  # fmt: skip
            carried.setdefault(key, {})[diff_step.target_of(one)] = None
    for kind, name, version, terms in sorted(carried, key=lambda key: (key[0] == "library", *key)):
        targets = ", ".join(carried[kind, name, version, terms])
        yield Component(name=name, version=version, kind=kind, terms=terms, targets=targets)


def _billed(package: Package) -> list[dict[str, Any]]:
    for file in package.files:
        if file.path.rpartition("/")[2] == bom.NAME:
            content = json.loads(archive.within(package.folder, file.path).read_bytes())
            return [one for one in content.get("components", []) if isinstance(one, dict)]
    return []


def _terms(component: Mapping[str, Any]) -> str:
    found = []
    for one in component.get("licenses", []):
        named = one.get("license", {})
        found.append(str(one.get("expression") or named.get("id") or named.get("name") or ""))
    return ", ".join(filter(None, found))
