"""Diff: what a person asks before promoting - what is another one in version B than in version A, part by part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelrel.policy.compared import differences
from modelrel.steps.answers import Answers
from modelrel.steps.facts import Delivery, Known
from modelrel.values import Signature, TensorSpec

Tone = Literal["", "better", "worse", "breaks"]
Unit = Literal["", "bytes", "ms", "s"]
Value = str | int | float | None

_LOWER: Final = re.compile(
    r"(?i)(^|[_\W])((log_?|cross_?)?loss|error|err|rmse|mse|mae|mape|smape|rmsle|deviance|perplexity|wer|cer|brier|"
    r"entropy|nll|fpr|fnr|ece|hinge|latency|time|seconds|size)(?=$|[_\W\d])"
)
_HIGHER: Final = re.compile(
    r"(?i)(^|[_\W])(acc|accuracy|auc|auroc|auprc|roc|pr_auc|f1|f_?beta|fbeta|precision|recall|sensitivity|specificity|"
    r"tpr|tnr|r2|r_squared|score|ndcg|map|mrr|bleu|rouge\w*|kappa|mcc|gini|lift|iou|dice|ap|hit_rate|explained_variance"
    r")(?=$|[_\W\d])"
)
_NOISE: Final[Mapping[str, float]] = {"bytes": 0.01, "ms": 0.25, "s": 0.25}
"""What share a figure must have changed by before it is called better or worse: times were measured once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that is another one in B; None is one that it has not. `delta` is B - A, None where there is none."""

    what: str
    before: Value
    after: Value
    unit: Unit = ""
    delta: float | None = None
    tone: Tone = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question: the lines that differ, and how many do not. `unknown` says why there is no answer, if so."""

    name: str
    lines: tuple[Line, ...] = ()
    same: int = 0
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What differs between two versions. `breaks` are sentences on why callers of A cannot simply be sent to B."""

    before: str
    after: str
    parts: tuple[Part, ...]
    breaks: tuple[str, ...]
    answers: Answers
    problems: tuple[str, ...] = field(default_factory=tuple)


def diff(a: Known, b: Known, answers: Answers, ways: Mapping[str, str] | None = None) -> Diff:
    """Return what differs between A and B; `answers` is what came of asking both.

    `ways` says of metrics whether "higher" or "lower" is better, where their names do not tell.
    """
    breaks = tuple(line.note for line in _signature(a, b).lines if line.tone == "breaks")
    parts = (
        _metrics(a, b, ways or {}),
        _signature(a, b),
        _part("parameters", a.source.params, b.source.params),
        _part("data", _data(a), _data(b)),
        _part("origin", *_shared(_origin(a), _origin(b))),
        _requirements(a, b),
        _part("model", *_shared(_model(a), _model(b)), _units),
        _made("copies", "verified", (a, dict(_copies(a))), (b, dict(_copies(b)))),
        _made("packages", "packaged", (a, dict(_packages(a))), (b, dict(_packages(b)))),
        _part("tags", _tags(a), _tags(b)),
    )
    problems = tuple(f"{one.label}: {said}" for one in (a, b) for said in one.problems)
    return Diff(before=a.label, after=b.label, parts=parts, breaks=breaks, answers=answers, problems=problems)


def better(name: str) -> Literal["higher", "lower", ""]:
    """Return which way a metric is better, as its name tells; "" where it does not.

    >>> better("val_accuracy"), better("test_rmse"), better("depth")
    ('higher', 'lower', '')
    """
    if _LOWER.search(name):
        return "lower"
    return "higher" if _HIGHER.search(name) else ""


def _metrics(a: Known, b: Known, ways: Mapping[str, str]) -> Part:
    def judged(name: str, line: Line) -> Line:
        way = ways.get(name) or better(name)
        if line.delta is None or not way:
            return line
        up = line.delta > 0
        return replace(line, tone="better" if up == (way == "higher") else "worse", note=f"{way} is better")

    if not a.source.metrics and not b.source.metrics:
        return Part(name="metrics", unknown="neither run logged any")
    return _part("metrics", a.source.metrics, b.source.metrics, judged)


def _part(
    name: str,
    before: Mapping[str, Value],
    after: Mapping[str, Value],
    told: Callable[[str, Line], Line] = lambda _, line: line,
) -> Part:
    keys = [*before, *(key for key in after if key not in before)]
    found = [_line(key, before.get(key), after.get(key)) for key in keys if not _same(before.get(key), after.get(key))]
    return Part(name=name, lines=tuple(told(line.what, line) for line in found), same=len(keys) - len(found))


def _same(before: Value, after: Value) -> bool:
    return before == after or (before != before and after != after)  # noqa: PLR0124 - two NaN


def _line(what: str, before: Value, after: Value) -> Line:
    numbers = [one for one in (before, after) if isinstance(one, int | float)]
    delta = float(numbers[1] - numbers[0]) if len(numbers) == 2 else None
    finite = delta is not None and abs(delta) < float("inf")
    return Line(what=what, before=_finite(before), after=_finite(after), delta=delta if finite else None)


def _finite(value: Value) -> Value:
    """Return a value that JSON has: NaN and infinities as text."""
    odd = isinstance(value, float) and not abs(value) < float("inf")
    return str(value) if odd else value


def _made(name: str, how: str, a: tuple[Known, dict[str, Value]], b: tuple[Known, dict[str, Value]]) -> Part:
    """Compare what was made of each, where something was made of both."""
    lacking = [known.label for known, found in (a, b) if not found]
    if lacking:
        return Part(name=name, unknown=f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not {how} here")
    return _part(name, a[1], b[1], _units)


def _units(name: str, line: Line) -> Line:
    """Give sizes and times their unit, and say that less of them is better."""
    last = name.rpartition(" ")[2]
    unit: Unit = "bytes" if last in ("size", "memory") else "ms" if last in ("p50", "p99") else ""
    unit = "s" if last == "answer" else unit
    before = line.before if isinstance(line.before, int | float) else 0
    if not unit or line.delta is None or abs(line.delta) < _NOISE[unit] * abs(before):
        return replace(line, unit=unit)
    return replace(line, unit=unit, tone="better" if line.delta < 0 else "worse")


def _signature(a: Known, b: Known) -> Part:
    before, after = a.source.signature, b.source.signature
    if before is None or after is None:
        lacking = ", ".join(one.label for one, found in ((a, before), (b, after)) if found is None)
        return Part(name="signature", unknown=f"none is known of {lacking}")
    lines = [*_tensors("input", before.inputs, after.inputs), *_tensors("output", before.outputs, after.outputs)]
    if before.kind != after.kind:
        note = f"{b.label} takes {_kind(after)}, {a.label} {_kind(before)}"
        lines.insert(0, Line(what="kind", before=before.kind, after=after.kind, tone="breaks", note=note))
    names = {(kind, spec.name) for one in (before, after) for kind, spec in _each(one)}
    return Part(name="signature", lines=tuple(lines), same=len(names) - sum(line.what != "kind" for line in lines))


def _kind(signature: Signature) -> str:
    return "columns of a table" if signature.kind == "columns" else "tensors"


def _each(signature: Signature) -> Iterator[tuple[str, TensorSpec]]:
    yield from (("input", spec) for spec in signature.inputs)
    yield from (("output", spec) for spec in signature.outputs)


def _tensors(kind: str, before: tuple[TensorSpec, ...], after: tuple[TensorSpec, ...]) -> Iterator[Line]:
    """Yield what differs of inputs (or outputs); what callers of A would stumble over `breaks`."""
    old, new = ({spec.name: spec for spec in specs} for specs in (before, after))
    for name in [*old, *(name for name in new if name not in old)]:
        first, second = old.get(name), new.get(name)
        if first == second:
            continue
        breaks = _breaks(kind, first, second)
        shown = [typed(spec) if spec else None for spec in (first, second)]
        yield Line(what=f"{kind} {name}", before=shown[0], after=shown[1], tone="breaks" if breaks else "", note=breaks)


def _breaks(kind: str, before: TensorSpec | None, after: TensorSpec | None) -> str:
    """Return what of a change breaks callers, in the words of the policy; "" where it does not."""
    old, new = (
        Signature(kind="tensor", inputs=(one,) if one and kind == "input" else (),
                  outputs=(one,) if one and kind == "output" else ())
        for one in (before, after)
    )  # fmt: skip
    return "; ".join(differences(old, new))


def typed(spec: TensorSpec) -> str:
    """Return datatype and shape of a tensor in few words; a column has no shape worth telling."""
    shape = "" if spec.shape in ((-1, 1), (-1,)) else f" {list(spec.shape)}"
    return f"{spec.datatype}{shape}{'' if spec.required else ', optional'}"


def _data(one: Known) -> dict[str, Value]:
    return {f"{data.name}{f' ({data.context})' if data.context else ''}": data.digest for data in one.source.datasets}


def _origin(one: Known) -> dict[str, Value]:
    source = one.source
    said = {
        "git commit": source.git_commit,
        "experiment": source.experiment,
        "run": source.run_id,
        "logged model": source.model_id,
        "source sha256": source.digest if source.files else "",
        "author": source.tags.get("mlflow.user", ""),
    }
    return {key: value for key, value in said.items() if value}


def _requirements(a: Known, b: Known) -> Part:
    if not a.source.flavor or not b.source.flavor:
        lacking = ", ".join(one.label for one in (a, b) if not one.source.flavor)
        return Part(name="requirements", unknown=f"those of {lacking} are not known before it is pulled")
    return _part("requirements", _pinned(a), _pinned(b))


def _pinned(one: Known) -> dict[str, Value]:
    """Return distribution -> what is asked of it, `1.6.1` for `==1.6.1`; with Python, and MLflow's own version."""
    found: dict[str, Value] = {"Python": one.source.python_version} if one.source.python_version else {}
    for line in one.source.requirements:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            found[line] = "as it is"
            continue
        pins = str(wanted.specifier)
        found[canonicalize_name(wanted.name)] = pins.removeprefix("==") if "," not in pins else pins
    return {key: value or "any version" for key, value in found.items()}


def _model(one: Known) -> dict[str, Value]:
    estimator = next((copy.converted.estimator for copy in one.copies if copy.converted.estimator), "")
    said: dict[str, Value] = {
        "flavor": one.source.flavor,
        "estimator": estimator,
        "size": one.size or None,
        "what loading runs": one.pickles,
        "MLflow": one.source.mlflow_version,
    }
    return {key: value for key, value in said.items() if value}


def _shared(a: Mapping[str, Value], b: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return what both tell of themselves: what one does not is not known of it, rather than gone."""
    return {key: a[key] for key in a if key in b}, {key: b[key] for key in b if key in a}


def _copies(one: Known) -> Iterator[tuple[str, Value]]:
    for copy in one.copies:
        form, converted, parity = copy.converted.format, copy.converted, copy.parity
        yield f"{form} size", converted.file.size
        if converted.quantize:
            yield f"{form} quantized", converted.quantize
        opset = converted.opsets.get("ai.onnx", converted.opsets.get(""))
        if opset:
            yield f"{form} opset", str(opset)
        if parity is None:
            yield f"{form} proof", "not verified"
            continue
        yield f"{form} rows compared", f"{parity.rows:,}"
        yield f"{form} labels that differ", parity.disagreements
        yield f"{form} largest error", parity.max_abs_error


def _packages(one: Known) -> Iterator[tuple[str, Value]]:
    for delivery in one.deliveries:
        name = target_of(delivery)
        yield f"{name} size", delivered_size(delivery)
        if (smoke := delivery.smoke) is not None:
            yield f"{name} first answer", smoke.first_answer_s
            yield f"{name} p50", smoke.p50_ms
            yield f"{name} p99", smoke.p99_ms
            yield f"{name} memory", smoke.memory_bytes or None


def target_of(delivery: Delivery) -> str:
    """Return how a package is called among those of one release: its target, and its format where that is not ONNX."""
    form = delivery.package.converted.format
    return (
        delivery.package.target if form in ("onnx", delivery.package.target) else f"{delivery.package.target} ({form})"
    )


def delivered_size(delivery: Delivery) -> int:
    """Return the bytes of what is delivered: of an image what it adds to its base."""
    image = delivery.package.image
    return image.added if image else delivery.package.size


def _tags(one: Known) -> dict[str, Value]:
    """Return the tags that people set, on the run and on the version (which win)."""
    own = {**one.source.tags, **one.tags}
    return {key: value for key, value in own.items() if not key.startswith(("mlflow.", "modelrel."))}
