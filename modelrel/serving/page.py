"""The page at ``/``: what is served, where it comes from, and a request to try. One file, no other resource.

Names, reasons and metadata come from models, which may be hostile: everything goes through ``_text``, and the policy
lets no script run but the one of this file, whose digest it names.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from . import VERSION
from .answers import Answer
from .examples import PROTOCOLS, Row, first_row
from .front import asked_at, example_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .calls import Routes
    from .manifest import TensorSpec
    from .model import Model
    from .models import Endpoint, Snapshot

LONGEST: Final = 4096
"""Bytes of an example that is written into the page; a longer one is fetched when somebody wants it."""

_SHOWN: Final = 300
_WIDTH: Final = 88


def page(found: Routes, snapshot: Snapshot, *, keys: bool = False) -> Answer:
    """Return the page about all that is served; ``keys`` is whether clients must send a key."""
    ends = list(snapshot.endpoints.values())
    parts = [_head(found, snapshot, keys=keys)]
    if len(ends) > 1:
        links = (f'<a href="#m{at}">{_text(end.name)}</a>' for at, end in enumerate(ends))
        parts.append(f'<nav aria-label="models">{" ".join(links)}</nav>')
    parts += [_model(found, snapshot, end, at) for at, end in enumerate(ends)]
    parts.append(_gone(snapshot))
    title = _text(", ".join(f"{end.name}/{end.default.version}" for end in ends)) or "no model"
    return _whole(f"{title} · modelrel", "".join(parts), 200)


def locked() -> Answer:
    """Return the page for who has no key yet: it asks for one, and shows the other page when it is right."""
    asks = '<form id="unlock"><label>API key <input id="key" type="password" autocomplete="off" required></label>'
    asks += ' <button disabled>Open</button> <output aria-live="polite"></output></form>'
    return _whole("modelrel", f"<header><h1>modelrel</h1></header><p>This server wants a key.</p>{asks}", 401)


def _whole(title: str, body: str, status: int) -> Answer:
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>\n<body>{body}\n<script>{SCRIPT}</script></body></html>\n"
    )
    return Answer(status, HEADERS, text.encode())


def _head(found: Routes, snapshot: Snapshot, *, keys: bool) -> str:
    state = "ready" if snapshot.ready else "not ready: a model that was asked for is not there"
    links = [("/openapi.json", "OpenAPI"), ("/metrics", "Metrics"), ("/v2/health/ready", "Health")]
    shown = "".join(f'<a href="{path}">{name}</a>' for path, name in links if path in found)
    key = '<label>API key <input id="key" type="password" autocomplete="off"></label>' if keys else ""
    dot = f'<span class="{"good" if snapshot.ready else "bad"}">{state}</span>'
    return f"<header><h1>modelrel <small>{VERSION}</small></h1><p>{dot}</p><p>{shown}</p>{key}</header>"


def _model(found: Routes, snapshot: Snapshot, end: Endpoint, at: int) -> str:
    model = end.default
    return (
        f'\n<section id="m{at}"><h2>{_text(model.name)} <small>version {_text(model.version)}</small></h2>'
        f'<div class="two"><div>{_signature("Takes", model.inputs, optional=model.kind == "columns")}'
        f"{_signature('Gives', model.outputs)}{_versions(snapshot, end)}{_provenance(model)}</div>"
        f"<div><h3>Try it</h3>{_tries(found, snapshot, end, at)}</div></div></section>"
    )


def _signature(title: str, specs: Sequence[TensorSpec], *, optional: bool = False) -> str:
    rows = []
    for spec in specs:
        shape = " × ".join("any" if size < 0 else str(size) for size in spec.shape) or "one value"
        left_out = " <small>optional</small>" if optional and not spec.required else ""
        rows.append((f"<code>{_text(spec.name)}</code>{left_out}", _text(spec.datatype), _text(shape)))
    return f"<h3>{title}</h3>{_table(('name', 'type', 'shape'), rows)}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _versions(snapshot: Snapshot, end: Endpoint) -> str:
    """Return the table of versions, where there is more to say than that there is one."""
    states = [state for state in snapshot.states if state.name == end.name]
    if len(states) < 2 and not end.labels and not end.variants:
        return ""
    weights = {model.version: weight for model, weight in end.variants}
    total = sum(weights.values()) or 1.0
    shadows = {model.version for model in end.shadows}
    rows = []
    for _, version, state, reason in states:
        roles = [f"label {label}" for label, named in end.labels.items() if named == version]
        if version in weights:
            roles.append(f"{100 * weights[version] / total:.3g} % of requests")
        elif version == end.default.version and not weights:
            roles.append("default")
        roles += ["shadow"] if version in shadows else []
        rows.append((_text(version), _text(", ".join(roles)), _state(state, reason)))
    return f"<h3>Versions</h3>{_table(('version', 'what for', 'state'), rows)}"


def _state(state: str, reason: str) -> str:
    kind = "good" if state == "READY" else "bad"
    return f'<span class="{kind}">{_text(state)}</span> {_text(reason)}'


def _gone(snapshot: Snapshot) -> str:
    """Return the section of names that nothing is served of."""
    rows = [
        (f"<code>{_text(name)}</code>", _text(version), _state(state, reason))
        for name, version, state, reason in snapshot.states
        if name not in snapshot.endpoints
    ]
    if not rows:
        return ""
    return f"\n<section><h2>Not served</h2>{_table(('name', 'version', 'state'), rows)}</section>"


def _provenance(model: Model) -> str:
    known = dict(model.metadata)
    parity, tools = known.pop("parity", None), known.pop("tools", None)
    shown: list[tuple[str, str]] = [("format", f"{model.format}, by {model.platform}")]
    names = {"run_id": "run", "model_sha256": "model sha256", "modelrel_version": "released by modelrel"}
    shown += [(names.get(key, key.replace("_", " ")), _plain(value)) for key, value in known.items() if value != ""]
    if isinstance(parity, dict):
        said = {"rows": "rows compared", "max_abs_error": "largest error", "disagreements": "answers that differ"}
        shown.append(
            ("parity", ", ".join(f"{said.get(str(key), key)}: {_plain(value)}" for key, value in parity.items()))
        )
    if isinstance(tools, dict):
        shown.append(("tools", ", ".join(f"{name} {_plain(version)}" for name, version in tools.items())))
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in shown)
    return f"<h3>Where it comes from</h3><dl>{rows}</dl>"


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else value
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _tries(found: Routes, snapshot: Snapshot, end: Endpoint, at: int) -> str:
    """Return one form for each protocol that is served; they open one at a time."""
    model, row = end.default, first_row(end.default)
    places = asked_at(found, snapshot, end, model)
    made: list[str] = []
    for protocol, (title, request) in PROTOCOLS.items():
        if protocol not in places:
            continue
        sent = request(model, row) if row else None
        source = example_path(end.name, model.version, protocol)
        made.append(
            f'<details name="try{at}"{"" if made else " open"}><summary>{title} '
            f"<code>POST {_text(places[protocol])}</code></summary>{_form(places[protocol], source, sent)}</details>"
        )
    return "".join(made) + (_recorded(row) if row else "<p>The model folder has no golden rows to show.</p>")


def _form(path: str, source: str, sent: Mapping[str, Any] | None) -> str:
    text = pretty(sent) if sent is not None else "{}"
    long = len(text.encode()) > LONGEST
    address = _text(quote(path, safe="/:"))
    fetched = f' data-example="{_text(quote(source, safe="/:"))}"' if long else ""
    link = f'<p>The golden row is long: <a href="{_text(quote(source, safe="/:"))}">{len(text):,} characters</a>.</p>'
    curl = f"curl -s http://SERVER{address} -H 'Content-Type: application/json' -d @request.json"
    return (
        f'{link if long else ""}<form data-path="{address}"{fetched}><label>Request'
        f'<textarea rows="9" spellcheck="false" autocomplete="off">{"" if long else _text(text)}</textarea></label>'
        '<p><button disabled>Send</button> <output aria-live="polite"></output></p>'
        '<pre class="answer" tabindex="0" aria-label="answer" hidden></pre>'
        f'<p>In a shell: <button type="button" class="copy" disabled>Copy</button></p><pre class="curl" tabindex="0">'
        f"{curl}</pre></form>"
    )


def _recorded(row: Row) -> str:
    text = pretty(row.outputs)
    if not row.outputs or len(text) > LONGEST:
        return ""
    return f"<details><summary>What the release recorded for this row</summary><pre>{_text(text)}</pre></details>"


def pretty(value: object, indent: int = 0) -> str:
    """Write JSON for people: what fits into a line stays in one, and so does a list of numbers."""
    line = json.dumps(value, ensure_ascii=False)
    plain = isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)
    if plain or len(line) + indent <= _WIDTH or not isinstance(value, list | dict):
        return line
    inner = indent + 1
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, inner)}" for key, item in value.items()]
    else:
        parts = [pretty(item, inner) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    gap = "\n" + " " * inner
    return f"{start}{gap}{f',{gap}'.join(parts)}\n{' ' * indent}{end}"


def _text(value: str) -> str:
    """Return text that means nothing to a browser, whatever is in it."""
    return escape(value, quote=True)


def _asset(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


STYLE: Final = _asset("page.css")
SCRIPT: Final = _asset("page.js")

HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": f"default-src 'none'; script-src {_digest(SCRIPT)}; style-src {_digest(STYLE)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
