"""What a released file says about where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from modelrel import __version__
from modelrel.values import SourceModel


def metadata(source: SourceModel, tools: Mapping[str, str]) -> dict[str, str]:
    """Return what the file says about its origin, under `modelrel.` keys; nothing that changes by itself."""
    said = {
        "model": source.name,
        "version": source.version,
        "run_id": source.run_id,
        "source_digest": source.digest,
        "flavor": source.flavor,
        "modelrel_version": __version__,
        "tools": json.dumps(dict(tools), sort_keys=True),
        "signature": json.dumps(asdict(source.signature), sort_keys=True) if source.signature else "",
    }
    return {f"modelrel.{name}": value for name, value in sorted(said.items())}
