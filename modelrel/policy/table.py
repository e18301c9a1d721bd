"""`[policy]` of modelrel.toml: every key, what it asks, what may stand there (JSON Schema), and how that is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from modelrel import quantities
from modelrel.errors import Invalid, did_you_mean
from modelrel.policy.asked import Finding, Metric, Policy, Rung

_LOWER: Final = frozenset(
    {"loss", "error", "rmse", "mse", "mae", "mape", "msle", "logloss", "brier", "deviance", "crossentropy"}
)
"""Last words of metrics that are better when they are lower: `val_loss`, `test.rmse`."""

_MANY: Final = {"type": "array", "items": {"type": "string", "minLength": 1}}
_NUMBER: Final = {"type": "number", "minimum": 0}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_SIZE: Final = {"type": "string", "pattern": quantities.SIZE}
_METRIC: Final = {
    "margin": {"description": "how much worse than the holder's it may be", "type": "number", "minimum": 0},
    "better": {
        "description": "which way is better (higher; lower for names that end in loss, error, rmse, mae, …)",
        "enum": ["higher", "lower"],
    },
    "minimum": {"description": "the least it may be", "type": "number"},
    "maximum": {"description": "the most it may be", "type": "number"},
}


class _WrongError(ValueError):
    """A value is not what the schema says; the message goes on from "is": `'x', not a number`."""


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise _WrongError("not a list of texts")
    return tuple(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise _WrongError("not a number of 0 or more")
    return float(value)


def _any_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise _WrongError("not a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _WrongError("not a whole number of 0 or more")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongError("not true or false")
    return value


def _size(value: Any) -> int:
    try:
        return quantities.size(value if isinstance(value, str) else "", "")
    except Invalid as error:
        raise _WrongError("not a size: write for example 300MB or 64MiB") from error


def _span(value: Any) -> float:
    try:
        return quantities.span(value if isinstance(value, str) else "", "")
    except Invalid as error:
        raise _WrongError("not a span of time: write for example 14d, 12h or 30min") from error


def _by_target(one: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        return {name: one(each) for name, each in value.items()} if isinstance(value, dict) else {"": one(value)}

    return read


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _WrongError("not a table of texts")
    return dict(value)


def _choice(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in known:
            raise _WrongError(f"none of {', '.join(known)}")
        return str(value)

    return read


def _metrics(value: Any) -> dict[str, Metric]:
    if not isinstance(value, dict):
        raise _WrongError("not a table of metrics: write for example { accuracy = 0.01 }")
    return {name: _metric(name, one) for name, one in value.items()}


def _metric(name: str, value: Any) -> Metric:
    table = value if isinstance(value, dict) else {"margin": value}
    unknown = sorted(table.keys() - _METRIC.keys())
    if unknown:
        near = did_you_mean(unknown[0], _METRIC)
        raise _WrongError(
            f"a table in which {name} has the unknown key {unknown[0]!r} ({near}Known: {', '.join(_METRIC)})"
        )
    if not table:
        raise _WrongError(f"a table in which nothing is asked of {name}")
    try:
        margin = _number(table["margin"]) if "margin" in table else None
        minimum, maximum = (_any_number(table[key]) if key in table else None for key in ("minimum", "maximum"))
        word = name.lower().replace(".", "_").replace("-", "_").replace("/", "_").rpartition("_")[2]
        usual: Literal["higher", "lower"] = "lower" if word in _LOWER else "higher"
        better: Any = _choice("higher", "lower")(table.get("better", usual))
    except _WrongError as error:
        raise _WrongError(f"a table in which something of {name} is {error}") from error
    return Metric(better=better, margin=margin, minimum=minimum, maximum=maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: what it asks, what may stand there, how that is read (ValueError), and which field it is (its name)."""

    says: str
    schema: Mapping[str, Any]
    read: Callable[[Any], Any]
    field: str = ""


POLICY: Final[Mapping[str, Key]] = {
    "ladder": Key(
        says="the aliases (or stages) of a promotion, lowest first; a version climbs one at a time",
        schema=_MANY,
        read=_names,
    ),
    "public_keys": Key(says="PEM files of the keys that may sign evidence", schema=_MANY, read=_names),
}
"""The keys of `[policy]` itself; every other one is the table of an alias or a stage."""

RUNG: Final[Mapping[str, Key]] = {
    "from": Key(
        says="aliases or stages of which the version must hold one (else the rung below); empty: none",
        schema=_MANY,
        read=_names,
        field="holds",
    ),
    "smoke": Key(says="targets whose built artifact must be smoke-tested", schema=_MANY, read=_names),
    "max_abs_error": Key(
        says="most that a number of the copy may be off, in its worst row", schema=_NUMBER, read=_number
    ),
    "max_disagreements": Key(says="most rows in which the copy gives another label", schema=_WHOLE, read=_whole),
    "min_rows": Key(says="least rows that original and copy were compared on", schema=_WHOLE, read=_whole),
    "max_size": Key(
        says="most that an artifact may weigh, for example 300MB; or a table by target",
        schema={"anyOf": [_SIZE, {"type": "object", "additionalProperties": _SIZE}]},
        read=_by_target(_size),
    ),
    "p99_ms": Key(
        says="most milliseconds of the slowest percent of answers in the smoke test; or a table by target",
        schema={"anyOf": [_NUMBER, {"type": "object", "additionalProperties": _NUMBER}]},
        read=_by_target(_number),
    ),
    "pickle": Key(
        says="what loading the pulled files may run: none, safe (only what rebuilds data), unknown (nothing dangerous)",
        schema={"enum": ["none", "safe", "unknown"]},
        read=_choice("none", "safe", "unknown"),
    ),
    "signature": Key(
        says="against the version that is replaced: compatible (who asked that one can ask this), or same",
        schema={"enum": ["compatible", "same"]},
        read=_choice("compatible", "same"),
    ),
    "metrics": Key(
        says="metrics of the run: how much worse than the holder's each may be, or a table with bounds",
        schema={
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    _NUMBER,
                    {"type": "object", "properties": _METRIC, "additionalProperties": False, "minProperties": 1},
                ]
            },
        },
        read=_metrics,
    ),
    "max_age": Key(
        says="age of the evidence, for example 14d", schema={"type": "string", "pattern": quantities.SPAN}, read=_span
    ),
    "signed": Key(
        says="every artifact has evidence that one of public_keys signed", schema={"type": "boolean"}, read=_flag
    ),
    "tags": Key(
        says='tags of the version, and their values ("*": any)',
        schema={"type": "object", "additionalProperties": {"type": "string"}},
        read=_texts,
    ),
    "approvals": Key(
        says="how many people other than the author must have approved (modelrel approve)", schema=_WHOLE, read=_whole
    ),
}
"""The keys of `[policy.NAME]`; README's table and the schema are made from it."""


def findings(table: Any) -> tuple[Policy, tuple[Finding, ...]]:
    """Return the policy in a table (`[policy]` of modelrel.toml) as far as it can be read, and all that is wrong."""
    if not isinstance(table, dict):
        return Policy(), (Finding(path=("policy",), message="policy is not a table", hint="Write [policy]."),)
    wrong: list[Finding] = []
    top = _fields({name: value for name, value in table.items() if name in POLICY}, POLICY, ("policy",), wrong)
    rungs = {}
    for name, value in table.items():
        if name in POLICY:
            continue
        if not isinstance(value, dict):
            known = [*POLICY, "NAME (a table, [policy.NAME])"]
            hint = f"{did_you_mean(name, [*POLICY, *RUNG])}Known: {', '.join(known)}."
            wrong.append(
                Finding(
                    path=("policy", name), message=f"[policy] has {name!r}, which modelrel does not know", hint=hint
                )
            )
            continue
        rungs[name] = Rung(**_fields(value, RUNG, ("policy", name), wrong))
    return Policy(**top, rungs=rungs), tuple(wrong)


def _fields(
    table: Mapping[str, Any], known: Mapping[str, Key], path: tuple[str, ...], wrong: list[Finding]
) -> dict[str, Any]:
    """Return field -> value of the keys that can be read; what is wrong goes into the list."""
    found = {}
    section = f"[{'.'.join(path)}]"
    for name, value in table.items():
        if name not in known:
            hint = f"{did_you_mean(name, known)}Known: {', '.join(known)}."
            wrong.append(
                Finding(path=(*path, name), message=f"{section} has {name!r}, which modelrel does not know", hint=hint)
            )
            continue
        try:
            found[known[name].field or name] = known[name].read(value)
        except _WrongError as error:
            wrong.append(
                Finding(
                    path=(*path, name),
                    message=f"{section} {name} is {value!r}, {error}",
                    hint=f"It is {known[name].says}.",
                )
            )
    return found


def read(table: Mapping[str, Any]) -> Policy:
    """Return the policy in a table (`[policy]` of modelrel.toml); raises `Invalid` for all that it may not hold."""
    policy, wrong = findings(table)
    if wrong:
        said = "; ".join(one.message for one in wrong)
        raise Invalid(f"modelrel.toml: {said}", f"{wrong[0].hint} `modelrel check` shows where.".strip())
    return policy


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `[policy]`."""
    rung = {"type": "object", "additionalProperties": False, "properties": _described(RUNG)}
    return {
        "type": "object",
        "description": "the rules of promotion",
        "properties": _described(POLICY),
        "additionalProperties": {**rung, "description": "what this alias (or stage) asks of a version"},
    }


def _described(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {name: {"description": key.says, **key.schema} for name, key in keys.items()}
