"""What npm calls a package and its version: names that a registry takes, semantic versions."""

from __future__ import annotations

import re
from typing import Final

from modelrel.errors import Invalid
from modelrel.targets import payload

_LONGEST: Final = 214
_NAME: Final = r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*"
"""https://docs.npmjs.com/cli/v11/configuring-npm/package-json#name, without the capitals of old packages."""

_NUMBER: Final = r"(?:0|[1-9]\d{0,15})"
_MARK: Final = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER: Final = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_MARK}(?:\.{_MARK})*)?"
"""https://semver.org/spec/v2.0.0.html; no build part, which registries leave out."""

_LARGEST: Final = 2**53 - 1  # npm's own: Number.MAX_SAFE_INTEGER

_TAKEN: Final = frozenset(
    {
        "assert", "async_hooks", "buffer", "child_process", "cluster", "console", "constants", "crypto", "dgram",
        "diagnostics_channel", "dns", "domain", "events", "favicon.ico", "fs", "http", "http2", "https",
        "inspector", "module", "net", "node_modules", "onnxruntime-common", "onnxruntime-web", "os", "path",
        "perf_hooks", "process", "punycode", "querystring", "readline", "repl", "sea", "sqlite", "stream",
        "string_decoder", "sys", "test", "timers", "tls", "trace_events", "tty", "url", "util", "v8", "vm", "wasi",
        "worker_threads", "zlib",
    }
)  # fmt: skip
"""Node's own modules, which `import` finds first, and what no package may be called."""


def package(name: str) -> str:
    """Return the name of the package of a model.

    >>> package("Churn (EU)"), package("events")
    ('churn-eu', 'events-model')
    """
    found = payload.slug(name)[: _LONGEST - len("-model")].strip("-")
    return f"{found}-model" if found in _TAKEN else found


def check(name: str) -> str:
    """Return `name` where npm takes it; raises `Invalid` otherwise."""
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST or name in _TAKEN or ".." in name:
        raise Invalid(
            f"{name!r} is no name of an npm package",
            "Names have lower-case letters, digits and dashes, and may have a scope: @acme/churn.",
        )
    return name


def version(said: str, slug: str) -> str:
    """Return the semantic version of a model's version; `slug` stands for what is none.

    >>> version("7", "7"), version("2.1", "2.1"), version("1.2.3-rc.1", ""), version("2026 May", "2026-May")
    ('7.0.0', '2.1.0', '1.2.3-rc.1', '0.0.0-v2026-May')
    """
    numbers = said.split(".")
    if len(numbers) <= 3 and all(re.fullmatch(r"[0-9]{1,16}", one) and int(one) <= _LARGEST for one in numbers):
        return ".".join(str(int(one)) for one in [*numbers, "0", "0"][:3])
    if re.fullmatch(SEMVER, said) and all(int(one) <= _LARGEST for one in said.partition("-")[0].split(".")):
        return said
    return f"0.0.0-v{re.sub(r'[^0-9A-Za-z-]+', '-', slug)}"
