"""The data sets that a run logged: which of them lie in a file that rows can be read from, and why others do not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from modelrel.values import Dataset

FORMS: Final = (".csv", ".parquet")
"""What is read, as data: neither can carry code."""

_LONGEST: Final = 60


class Logged(NamedTuple):
    """A data set as MLflow keeps it; `source` is JSON text."""

    name: str
    digest: str
    source_type: str | None
    source: str | None


def described(logged: Logged, context: str, registry: str) -> Dataset:
    """Return what is kept of a data set.

    Addresses are not kept: they can hold a password or a token. `registry` is the URI that it was read from.
    """
    path, unread = _place(str(logged.source_type or ""), str(logged.source or ""), registry)
    return Dataset(name=logged.name, digest=logged.digest, context=context, path=path, unread=unread)


def _place(kind: str, source: str, registry: str) -> tuple[str, str]:
    """Return the file that holds the rows, and "", or "" and the reason why none is read."""
    if kind == "code":
        return "", "only the script that made it was logged, and scripts are not run for rows"
    if kind != "local":
        shown = re.sub(r"[^\w.-]", "", kind)[:_LONGEST] or "unknown"
        return "", f"its source is {shown}, and nothing is fetched over a network for rows"
    if not _local(registry):
        # Whoever may write to a server names any path in a run: it would be some file of *this* machine, whose
        # content the reports and the folder of the release then show to others. Who may write to a database file
        # here can mostly read our files already.
        return "", "its source is a local file, and the registry is on another machine"
    try:
        uri = urlsplit(str(json.loads(source)["uri"]))
    except (ValueError, KeyError, TypeError):
        return "", "its source is not readable"
    if uri.netloc not in ("", "localhost") or uri.scheme not in ("", "file"):
        return "", "its source is not a path of this machine"
    path = Path(unquote(uri.path) if uri.scheme else uri.path)
    if not path.is_absolute():
        return "", "its path is relative to the folder in which the training ran"
    if path.suffix.lower() not in FORMS:
        return "", f"it is not {' or '.join(FORMS)}"
    return str(path), ""


def _local(registry: str) -> bool:
    """Whether the registry is a file or a folder of this machine."""
    return registry.startswith(("sqlite:///", "file:", "/", "."))
