"""Inspect: what a pulled model can become, and why not."""

from __future__ import annotations

from modelrel.formats import FORMATS
from modelrel.targets import TARGETS
from modelrel.values import SourceModel


def possible(source: SourceModel) -> dict[str, str]:
    """Return format -> the targets it can be delivered to, or the reason why there is no copy in this format.

    This is what the flavor and the signature tell; whether this one estimator has an exact copy is told by
    `convert`, which loads it.
    """
    found = {}
    for name, form in FORMATS.items():
        if source.flavor not in form.FLAVORS:
            known = ", ".join(sorted(form.FLAVORS))
            found[name] = f"no: the flavor is {source.flavor}, and {name} is written from {known}"
        elif source.signature is None:
            found[name] = "no: it was logged without a signature that a copy can keep"
        else:
            found[name] = f"yes, for {', '.join(TARGETS)}"
    return found
