"""What the operator says about which version answers: labels, shares of the requests, shadows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .manifest import TensorSpec
    from .model import Model

    Versions = Mapping[str, Model]


class Label(NamedTuple):
    """``label`` is another word for a version."""

    name: str
    label: str
    version: str


class Share(NamedTuple):
    """A version gets a share of the requests that name none: its weight by the sum of all weights of the name."""

    name: str
    version: str
    weight: float


class Shadow(NamedTuple):
    """A version gets a copy of the requests that name none."""

    name: str
    version: str


class Sticky(NamedTuple):
    """What decides which variant a request goes to: one of its headers (``is_header``), or an input of the model."""

    is_header: bool
    name: str


def label(text: str) -> Label:
    """Read ``NAME/LABEL=VERSION``. Raises ``ValueError``."""
    left, _, version = text.rpartition("=")
    name, _, word = left.rpartition("/")
    if not (name and word and version):
        raise ValueError(f"must be NAME/LABEL=VERSION, not {text!r}")
    if word.isdigit():
        raise ValueError(f"names {text!r}, but a number is a version, not a label")
    return Label(name, word, version)


def weight(text: str) -> Share:
    """Read ``NAME/VERSION=WEIGHT``. Raises ``ValueError``."""
    left, _, number = text.rpartition("=")
    name, _, version = left.rpartition("/")
    try:
        heavy = float(number)
    except ValueError:
        heavy = -1.0
    if not (name and version and 0 <= heavy < float("inf")):
        raise ValueError(f"must be NAME/VERSION=WEIGHT with a number from 0, not {text!r}")
    return Share(name, version, heavy)


def shadow(text: str) -> Shadow:
    """Read ``NAME/VERSION``. Raises ``ValueError``."""
    name, _, version = text.rpartition("/")
    if not (name and version):
        raise ValueError(f"must be NAME/VERSION, not {text!r}")
    return Shadow(name, version)


def sticky(text: str) -> Sticky:
    """Read ``header:NAME`` or ``field:NAME``. Raises ``ValueError``."""
    kind, _, name = text.partition(":")
    if kind not in {"header", "field"} or not name:
        raise ValueError(f"must be header:NAME or field:NAME, not {text!r}")
    return Sticky(kind == "header", name.lower() if kind == "header" else name)


class Arranged(NamedTuple):
    """What ``models.Endpoint`` says about the versions of a name, and what of the options could not be done."""

    default: Model
    labels: Mapping[str, str]
    variants: tuple[tuple[Model, float], ...]
    shadows: tuple[Model, ...]
    faults: tuple[str, ...]


class Traffic(NamedTuple):
    """What the options say, for all names. It is applied to what is loaded, again each time that changes."""

    labels: tuple[Label, ...] = ()
    shares: tuple[Share, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    sticky: Sticky | None = None

    def arranged(self, name: str, versions: Versions) -> Arranged:
        """Apply the options to the loaded versions of a name, of which there is at least one.

        Where no version is asked for, the greatest of the variants answers, else the greatest that is no shadow. What
        cannot be done is left out, and said in ``faults``.
        """
        faults: list[str] = []
        labels = {one.label: one.version for one in self.labels if one.name == name}
        shares = {one.version: one.weight for one in self.shares if one.name == name}
        copied = [one.version for one in self.shadows if one.name == name]
        for option, asked in (("label", labels.values()), ("weight", shares), ("shadow", copied)):
            faults += [_absent(option, name, version, versions) for version in asked if version not in versions]
        faults += [
            f"version {one!r} of {name!r} has a weight, so it cannot be a shadow" for one in copied if one in shares
        ]
        copied = [one for one in copied if one in versions and one not in shares]
        if len(copied) == len(versions):
            faults.append(f"every version of {name!r} is a shadow, so none is left to answer")
            copied = []
        if shares and not sum(shares.values()):
            faults.append(f"the weights of {name!r} are all 0")
        variants = self._variants([one for one in shares if one in versions], shares, versions, faults)
        default = variants[-1][0] if variants else versions[newest(one for one in versions if one not in copied)]
        shadows = []
        for one in copied:
            unlike = _unlike(versions[one], default, outputs=False)
            faults += [f"{name}/{one} cannot be a shadow: {unlike}"] if unlike else []
            shadows += [] if unlike else [versions[one]]
        there = {word: version for word, version in labels.items() if version in versions}
        shared = tuple(variants) if len(variants) > 1 else ()
        return Arranged(default, there, shared, tuple(shadows), tuple(faults))

    def _variants(
        self, asked: list[str], shares: Mapping[str, float], versions: Versions, faults: list[str]
    ) -> list[tuple[Model, float]]:
        """Return the variants in the order of their versions; all have the signature of the greatest version."""
        found: list[tuple[Model, float]] = []
        first: Model | None = None
        for version in sorted(asked, key=_order, reverse=True):
            model = versions[version]
            first = first or model
            unlike = _unlike(model, first)
            if unlike:
                faults.append(
                    f"{model.name}/{version} cannot share requests with {first.name}/{first.version}: {unlike}"
                )
            elif shares[version]:
                found.append((model, shares[version]))
        if first is not None and self.sticky is not None and not self.sticky.is_header:
            inputs = [spec.name for spec in first.inputs]
            if self.sticky.name not in inputs:
                faults.append(f"the model {first.name!r} has no input {self.sticky.name!r} to choose its version by")
        return found[::-1]

    def strangers(self, names: Iterable[str]) -> list[str]:
        """Return a sentence for each name that the options speak of and that is none of ``names``."""
        options: tuple[Label | Share | Shadow, ...] = (*self.labels, *self.shares, *self.shadows)
        asked = dict.fromkeys(one.name for one in options)
        known = list(names)
        return [
            f"there is no model {name!r} here, only {', '.join(map(repr, known))}"
            for name in asked
            if name not in known
        ]


def newest(versions: Iterable[str]) -> str:
    """Return the greatest version: numbers by value, before them anything else by name."""
    return max(versions, key=_order)


def _order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isascii() and version.isdigit() else (-1, version)


def _absent(option: str, name: str, version: str, versions: Versions) -> str:
    known = ", ".join(map(repr, sorted(versions, key=_order)))
    return f"--{option} names version {version!r} of {name!r}, which is not loaded, only {known}"


def same_inputs(one: Model, other: Model) -> bool:
    """Whether arrays that were read for one model are right for another."""
    return not _unlike(one, other, outputs=False)


def alike(one: Model, other: Model) -> bool:
    """Whether one model may compute what was asked of another, and its results are taken for the other's."""
    return not _unlike(one, other)


def _unlike(one: Model, other: Model, *, outputs: bool = True) -> str:
    """Say how the signature of a model differs from that of another; "" where it does not."""
    by = f"{other.name}/{other.version}"
    kinds = [("input", one.inputs, other.inputs)] + [("output", one.outputs, other.outputs)] * outputs
    for word, own, theirs in kinds:
        names, others = {spec.name: spec for spec in own}, {spec.name: spec for spec in theirs}
        for name in [*names, *others]:
            if name not in others:
                return f"it has the {word} {name!r}, which {by} has not"
            if name not in names:
                return f"it has no {word} {name!r}, which {by} has"
            if names[name] != others[name]:
                return f"its {word} {name!r} is {_said(names[name])}, that of {by} {_said(others[name])}"
        if list(names) != list(others):
            return f"its {word}s stand in another order than those of {by}"
    if one.kind != other.kind:
        return f"it takes {one.kind}, {by} takes {other.kind}"
    if outputs and one.predict_output != other.predict_output:
        return f"it predicts {one.predict_output!r}, {by} predicts {other.predict_output!r}"
    if outputs and one.classes != other.classes:
        return f"it has other classes than {by}"
    return ""


def _said(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}{'' if spec.required else ' (optional)'}"
