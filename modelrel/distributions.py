"""What unpacked wheels say of themselves: names, versions, terms, licence texts, and what they need.

Fields: Core metadata specifications, packaging.python.org; the places of licence files: PEP 639 and older habits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from functools import cache
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from modelrel import archive

_SPDX: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "MIT License": "MIT",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What older wheels say instead of an expression, where that means one licence only."""

_PLAIN: Final = frozenset(
    {
        "0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0",
        "Unlicense", "Zlib",
    }
)  # fmt: skip
"""SPDX identifiers that older wheels state in the free field, alone or joined by AND and OR."""

_EXPRESSION: Final = re.compile(r"[A-Za-z0-9.+:() -]{1,500}")
_TEXT: Final = re.compile(r"(?i)(.*[-_.])?(licen[cs]es?|copying|notice|third-?party-?(notices?|licenses?))([-_.].*)?")
_NAME: Final = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")  # PEP 508, what a requirement begins with
_LIBRARIES: Final = ".libs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One wheel: `license` is an SPDX expression, or "" where it has none; then `stated` is what it says instead.

    `texts` are its licence files (name in the folder, text); `needs` the canonical names that it requires without
    extras; `libraries` the shared libraries of others that it brings along.
    """

    name: str
    version: str
    license: str
    stated: str
    texts: tuple[tuple[str, str], ...]
    needs: tuple[str, ...]
    libraries: tuple[Path, ...]

    @property
    def canonical(self) -> str:
        """The name as indexes compare it."""
        return canonicalize_name(self.name)


@cache
def read(folder: Path) -> tuple[Distribution, ...]:
    """Return the distributions that are unpacked in `folder`, by name; a folder of wheels does not change."""
    paths = sorted(folder.glob("*.dist-info/METADATA"))
    found = [_read(path, folder) for path in paths]
    return tuple(sorted(found, key=lambda one: one.canonical))


def licenses(found: Sequence[Distribution]) -> str:
    """Return one SPDX expression over the terms of several distributions, each licence once, sorted.

    Those that state none in words that are understood are left out.
    """
    terms: set[str] = set()
    for one in found:
        terms |= {f"({one.license})"} if " OR " in one.license else set(one.license.split(" AND "))
    return " AND ".join(sorted(terms - {""}))


def notices(found: Sequence[Distribution]) -> str:
    """Return the text of THIRD_PARTY_LICENSES: who is inside under which terms, then every licence text.

    A distribution that comes without a text is named as such.
    """
    head = ["What is inside of others, and the terms of each.", ""]
    body: list[str] = []
    for one in found:
        terms = one.license or one.stated or "states no licence"
        missing = "" if one.texts else "; its wheel has no licence text"
        head.append(f"{one.name} {one.version}: {terms}{missing}")
        for name, text in one.texts:
            body += ["", "=" * 100, f"{one.name} {one.version}: {name}", "=" * 100, "", text]
    return "\n".join([*head, *body]) + "\n"


def _read(path: Path, folder: Path) -> Distribution:
    said = HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))
    name, version = str(said.get("Name", "")), str(said.get("Version", ""))
    fallback, _, rest = path.parent.name.removesuffix(".dist-info").rpartition("-")
    name, version = name.strip() or fallback, version.strip() or rest
    license_, stated = _terms(said)
    return Distribution(
        name=name,
        version=version,
        license=license_,
        stated=stated,
        texts=tuple(_texts(path.parent, folder, name)),
        needs=tuple(sorted(set(_needs(said)))),
        libraries=tuple(_libraries(folder, name)),
    )


def _terms(said: Message) -> tuple[str, str]:
    """Return an SPDX expression, or "" and what stands in its place."""
    expression = str(said.get("License-Expression", "")).strip()
    if expression and _EXPRESSION.fullmatch(expression):
        return expression, ""
    free = str(said.get("License", "")).strip()
    classified = [str(one).strip() for one in said.get_all("Classifier", []) if str(one).startswith("License ::")]
    for one in (free, *(classified if len(classified) == 1 else ())):
        if one in _SPDX or all(part in _PLAIN for part in re.split(" AND | OR ", one)):
            return _SPDX.get(one, one), ""
    line = free.splitlines()[0].strip() if free else ""
    return "", (line or "; ".join(one.rpartition(" :: ")[2] for one in classified) or expression)[:120]


def _texts(described: Path, folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield the licence files in the metadata of a wheel, then those beside its modules that have another text."""
    seen = set()
    for top in (described, *_modules(folder, name)):
        for path in archive.walk(top) if top.is_dir() else ():
            relative = path.relative_to(folder).as_posix()
            kept = top is described and "licenses" in path.relative_to(top).parts[:-1]
            if not kept and (not _TEXT.fullmatch(path.name) or path.suffix in (".py", ".so", ".json")):
                continue
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).digest()
            if sha256 not in seen and b"\0" not in content:
                seen.add(sha256)
                text = content.decode("utf-8", errors="replace").replace("\r\n", "\n").strip("\n")
                yield relative, text


def _modules(folder: Path, name: str) -> list[Path]:
    """Return the folders of modules that are called like the distribution."""
    wanted = canonicalize_name(name)
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and canonicalize_name(path.name) == wanted]


def _libraries(folder: Path, name: str) -> Iterator[Path]:
    """Yield the libraries that auditwheel put beside the modules of a wheel."""
    for top in sorted(folder.glob(f"*{_LIBRARIES}")):
        if canonicalize_name(top.name.removesuffix(_LIBRARIES)) == canonicalize_name(name):
            yield from archive.walk(top)


def _needs(said: Message) -> Iterator[str]:
    for line in said.get_all("Requires-Dist", []):
        wanted, _, marker = str(line).partition(";")
        if (named := _NAME.match(wanted)) and "extra" not in marker:
            yield canonicalize_name(named[1])
