"""A target's own settings (`--set NAME=VALUE`): texts that are read, checked, and refused in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from modelrel.errors import Invalid

# RFC 1123, and Kubernetes' "Object Names and IDs"
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*"
_UNITS: Final[Mapping[str, Decimal]] = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(m|k|[MGT]i?|Ki)?")


def amount(text: str) -> Decimal:
    """Return a quantity as Kubernetes writes it (its `resource.Quantity`), -1 where it is none.

    >>> amount("250m"), amount("512Mi"), amount("lots")
    (Decimal('0.250'), Decimal('536870912'), Decimal('-1'))
    """
    found = _QUANTITY.fullmatch(text)
    return Decimal(found[1]) * _UNITS[found[2] or ""] if found else Decimal(-1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings that a user gave to a target; every reader raises `Invalid` for a value that is none."""

    target: str
    values: Mapping[str, str]

    def refuse(self, name: str, why: str, hint: str) -> Invalid:
        """Return the error for a setting."""
        return Invalid(f"the setting {name} of {self.target} is {self.values.get(name, '')[:120]!r}, {why}", hint)

    def text(self, name: str, default: str, pattern: str, like: str) -> str:
        """Return a text that a pattern fits; `like` is an example of one."""
        value = self.values.get(name) or default
        if value and not re.fullmatch(pattern, value, re.ASCII):
            raise self.refuse(name, "which is not of the form it must have", f"Write it as {like}.")
        return value

    def label(self, name: str, default: str = "", like: str = "models") -> str:
        """Return a name as Kubernetes takes it for a namespace: up to 63 lower-case letters, digits and dashes."""
        return self.text(name, default, _LABEL, like)

    def subdomain(self, name: str, default: str = "", like: str = "churn.example.org") -> str:
        """Return a name as Kubernetes takes it for most objects: labels with dots."""
        return self.text(name, default, _SUBDOMAIN, like)

    def choice(self, name: str, *words: str) -> str:
        """Return one of some words, the first where nothing was said."""
        value = self.values.get(name) or words[0]
        if value not in words:
            known = ", ".join(word for word in words if word)
            raise self.refuse(name, "which it does not know", f"It takes {known}.")
        return value

    def whole(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a whole number between two others."""
        value = self.values.get(name) or str(default)
        if not (value.isascii() and value.isdigit() and len(value) < 10 and lowest <= int(value) <= highest):
            raise self.refuse(name, f"not a whole number from {lowest} to {highest}", f"For example {default}.")
        return int(value)

    def quantity(self, name: str, default: str) -> str:
        """Return an amount of processors or memory as Kubernetes writes it, more than nothing."""
        value = self.values.get(name) or default
        if amount(value) <= 0:
            raise self.refuse(name, "not an amount", f"Write it as {default}, 2, 500m or 1Gi.")
        return value

    def percent(self, name: str) -> int:
        """Return a share in percent from 0 to 99, 0 where nothing was said; `10%` is 10."""
        value = (self.values.get(name) or "0").removesuffix("%")
        if not (value.isascii() and value.isdigit() and int(value[:9]) < 100):
            raise self.refuse(
                name, "not a whole percentage from 0 to 99", "Write 10 for a tenth; leave it out for all requests."
            )
        return int(value)
