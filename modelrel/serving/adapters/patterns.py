"""Expressions that come with a model, compiled only where no text can keep them busy for ever.

Python's `re` tries every way of cutting a text before it gives up. Where a repetition is inside a repetition and both
may take the same letter, there are exponentially many ways: thirty letters stop a server. Such expressions are told
by their parse tree. What is left takes at most a power of the text's length, which the size of a request bounds.
"""

from __future__ import annotations

import importlib
import re
from itertools import combinations
from typing import Any, Final

LONGEST: Final = 10_000
"""Letters of an expression."""

_SAMPLE: Final = [chr(code) for start, end in (
    (0, 0x250), (0x300, 0x310), (0x390, 0x3D0), (0x410, 0x450), (0x5D0, 0x5E0), (0x660, 0x66A), (0x966, 0x970),
    (0x2000, 0x2070), (0x3000, 0x3050), (0x4E00, 0x4E08), (0xFF10, 0xFF5B), (0x1F600, 0x1F608),
) for code in range(start, end)]  # fmt: skip
"""Letters on which two classes of letters are told apart."""


class Unsafe(ValueError):
    """The expression is not to be run; the message says why, after its name."""


def compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression, which has one group at most.

    Raises `Unsafe` where it does not compile, is too long, refers back, or repeats a repetition of the same letters.
    """
    if len(pattern) > LONGEST:
        raise Unsafe(f"has {len(pattern):,} letters, and can have {LONGEST:,}")
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Unsafe(f"does not compile: {error}") from error
    if found.groups > 1:
        raise Unsafe(f"has {found.groups} groups, and can have one")
    tools = _parser()
    if tools is not None:
        parser, compiler = tools
        tree = parser.parse(pattern)
        _check(tree, _Letters(parser, compiler, tree))
    return found


def _parser() -> tuple[Any, Any] | None:
    """Return the modules behind `re`, which have had two names; where they get a third, what was checked stands."""
    for names in (("re._parser", "re._compiler"), ("sre_parse", "sre_compile")):
        try:
            return importlib.import_module(names[0]), importlib.import_module(names[1])
        except ImportError:
            continue
    return None


class _Letters:
    """Which letters one-letter items and whole parts of an expression take, on a sample."""

    def __init__(self, parser: Any, compiler: Any, tree: Any) -> None:
        self._parser, self._compiler, self._tree = parser, compiler, tree

    def of(self, item: Any) -> frozenset[str]:
        """Return the letters of an item that takes one letter."""
        alone = self._parser.SubPattern(self._tree.state, [item])
        found = self._compiler.compile(alone, self._tree.state.flags)
        return frozenset(letter for letter in _SAMPLE if found.fullmatch(letter))

    def within(self, items: Any) -> frozenset[str]:
        """Return the letters that any part of these items takes."""
        found: frozenset[str] = frozenset()
        for item in items:
            if _name(item) in _ONE:
                found |= self.of(item)
            for inner in _inside(item):
                found |= self.within(inner)
        return found


_ONE: Final = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}
_REPEATS: Final = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}


def _name(item: Any) -> str:
    return str(item[0])


def _inside(item: Any) -> list[Any]:
    """Return the parts inside an item, each a list of items."""
    name, said = _name(item), item[1]
    if name in _REPEATS:
        return [said[2]]
    if name == "SUBPATTERN":
        return [said[3]]
    if name in ("ASSERT", "ASSERT_NOT"):
        return [said[1]]
    if name == "BRANCH":
        return list(said[1])
    if name == "ATOMIC_GROUP":
        return [said]
    if name in ("GROUPREF", "GROUPREF_EXISTS"):
        raise Unsafe("refers back to what a group took, whose time has no bound")
    return []


def _check(items: Any, letters: _Letters) -> None:
    for item in items:
        if _name(item) in _REPEATS and int(item[1][1]) > 1 and not _one_way(item[1][2], letters):
            raise Unsafe("repeats a repetition of the same letters, which some texts keep busy for ever")
        for inner in _inside(item):
            _check(inner, letters)


def _flat(items: Any) -> list[Any]:
    """Return the items with those of plain groups in their place, and without what takes no letter."""
    found = []
    for item in items:
        if _name(item) == "SUBPATTERN":
            found += _flat(item[1][3])
        elif _name(item) not in ("AT", "ASSERT", "ASSERT_NOT"):
            found.append(item)
    return found


def _one_way(items: Any, letters: _Letters) -> bool:
    """Whether a text can be cut into repetitions of these items in one way only, as far as can be told.

    That is so where they always take the same number of letters, alternatives excepted, or where each repetition
    begins (or ends) with a letter that nothing else in it takes, and one item at most can stretch.
    """
    flat = _flat(items)
    loose = [item for item in flat if not _fixed(item)]
    if not loose:
        return all(_apart(item, letters) for item in flat)
    if len(loose) > 1 or not all(_apart(item, letters) for item in flat if _fixed(item)):
        return False
    if len(flat) == 1 and _name(flat[0]) == "BRANCH":
        return False
    (stretch,) = loose
    if not all(_one_way(inner, letters) for inner in _inside(stretch)) or _name(stretch) == "BRANCH":
        return False
    return any(
        _name(edge) in _ONE and not letters.of(edge) & letters.within(rest)
        for edge, rest in ((flat[0], flat[1:]), (flat[-1], flat[:-1]))
    )


def _fixed(item: Any) -> bool:
    """Whether an item takes one number of letters."""
    if _name(item) in _REPEATS:
        least, most, inner = item[1]
        return int(least) == int(most) and all(_fixed(one) for one in inner)
    if _name(item) == "BRANCH":
        sizes = {_width(branch) for branch in item[1][1]}
        return len(sizes) == 1 and -1 not in sizes
    return all(_fixed(one) for inner in _inside(item) for one in inner)


def _width(items: Any) -> int:
    """Return how many letters items take (-1: it depends)."""
    low, high = items.getwidth()
    return int(low) if low == high else -1


def _apart(item: Any, letters: _Letters) -> bool:
    """Whether at most one alternative of an item can take a text."""
    if _name(item) == "BRANCH":
        firsts = []
        for branch in item[1][1]:
            flat = _flat(branch)
            if not flat or _name(flat[0]) not in _ONE:
                return False
            firsts.append(letters.of(flat[0]))
        if any(one & other for one, other in combinations(firsts, 2)):
            return False
    return all(_apart(one, letters) for inner in _inside(item) for one in inner)
