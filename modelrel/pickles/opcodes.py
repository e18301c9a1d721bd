"""What each opcode of a pickle does to the machine (CPython, Lib/pickletools.py, protocols 0 to 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modelrel.pickles.machine import ANY, Machine, unescaped


def _pushes(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _passes(count: int, value: object = ANY) -> Callable[[Machine], None]:
    """Return a step over an argument of so many bytes, which pushes what nobody needs to know."""

    def step(machine: Machine) -> None:
        machine.skip(count)
        machine.push(value)

    return step


def _long(width: int) -> Callable[[Machine], None]:
    """Return a step over bytes whose number comes before, in so many bytes."""

    def step(machine: Machine) -> None:
        machine.skip(machine.number(width))
        machine.push(ANY)

    return step


def _text(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.text(machine.number(width))


def _lined(machine: Machine) -> None:
    machine.line()
    machine.push(ANY)


def _integer(machine: Machine) -> None:
    found = machine.exactly(machine.number(1))
    machine.push(int.from_bytes(found, "little", signed=True))


def _signed(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.exactly(4), "little", signed=True))


def _global(machine: Machine) -> None:
    machine.name(machine.line(), machine.line())


def _frozen(machine: Machine) -> None:
    machine.group()
    machine.push(ANY)


def _drops(machine: Machine) -> None:
    machine.pop()


def _nothing(machine: Machine) -> None:
    del machine


STEPS: Final[dict[bytes, Callable[[Machine], None]]] = {
    b"(": Machine.mark, b"0": Machine.drop, b"1": Machine.forget, b"2": lambda m: m.push(m.top()),
    # numbers and constants
    b"F": _lined, b"I": Machine.whole, b"L": Machine.whole, b"J": _signed, b"G": _passes(8), b"N": _pushes(None),
    b"K": lambda m: m.push(m.number(1)), b"M": lambda m: m.push(m.number(2)), b"\x8a": _integer, b"\x8b": _long(4),
    b"\x88": _pushes(True), b"\x89": _pushes(False),
    # texts and bytes
    b"S": Machine.old_text, b"T": _text(4), b"U": _text(1), b"V": lambda m: m.push(unescaped(m.line())),
    b"X": _text(4),
    b"\x8c": _text(1), b"\x8d": _text(8), b"B": _long(4), b"C": _long(1), b"\x8e": _long(8), b"\x96": _long(8),
    # collections
    b")": _pushes(()), b"t": Machine.as_tuple, b"\x85": lambda m: m.as_tuple(1), b"\x86": lambda m: m.as_tuple(2),
    b"\x87": lambda m: m.as_tuple(3), b"]": _pushes(ANY), b"l": _frozen, b"a": _drops,
    b"e": Machine.ends, b"}": lambda m: m.push({}), b"d": Machine.as_dict, b"s": lambda m: m.items(2),
    b"u": Machine.items, b"\x8f": _pushes(ANY), b"\x90": Machine.ends, b"\x91": _frozen,
    # memory
    b"p": lambda m: m.put(m.place()), b"q": lambda m: m.put(m.number(1)), b"r": lambda m: m.put(m.number(4)),
    b"\x94": Machine.put, b"g": lambda m: m.get(m.place()), b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    # what does something
    b"c": _global, b"\x93": Machine.named, b"R": Machine.reduce, b"i": Machine.instance, b"o": Machine.as_object,
    b"\x81": Machine.new, b"\x92": lambda m: m.new(keywords=True), b"b": Machine.build,
    b"\x82": lambda m: m.extension(1), b"\x83": lambda m: m.extension(2), b"\x84": lambda m: m.extension(4),
    b"P": _lined, b"Q": Machine.persistent,
    # the stream itself
    b"\x80": lambda m: m.skip(1), b"\x95": lambda m: m.skip(8), b"\x97": _pushes(ANY), b"\x98": _nothing,
}  # fmt: skip
