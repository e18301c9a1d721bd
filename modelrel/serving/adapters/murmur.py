"""MurmurHash3, the 32-bit variant for x86 (Austin Appleby, public domain), with seed 0 as scikit-learn hashes words."""

from __future__ import annotations

import struct
from typing import Final

_C1: Final = 0xCC9E2D51
_C2: Final = 0x1B873593
_ALL: Final = 0xFFFFFFFF


def hashed(data: bytes, width: int) -> tuple[int, bool]:
    """Return the column (0 to width - 1) of a word's UTF-8 bytes, and whether it counts positively.

    The column is the absolute value of the signed hash, modulo the width (scikit-learn, FeatureHasher).
    """
    value = murmur3(data)
    if value >= 0x80000000:
        value -= 0x100000000
    # The smallest number has no absolute value of 32 bits; scikit-learn gives 2**31 modulo the width in its own way.
    if value == -0x80000000:
        return (0x7FFFFFFF - (width - 1)) % width, False
    return abs(value) % width, value >= 0


def murmur3(data: bytes) -> int:
    """Return the hash, 0 to 2**32 - 1."""
    size = len(data)
    whole = size & ~3
    found = 0
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        mixed = block * _C1 & _ALL
        mixed = (mixed << 15 | mixed >> 17) * _C2 & _ALL
        found ^= mixed
        found = (found << 13 | found >> 19) & _ALL
        found = (found * 5 + 0xE6546B64) & _ALL
    if size > whole:
        mixed = int.from_bytes(data[whole:], "little") * _C1 & _ALL
        found ^= (mixed << 15 | mixed >> 17) * _C2 & _ALL
    found ^= size
    found = (found ^ found >> 16) * 0x85EBCA6B & _ALL
    found = (found ^ found >> 13) * 0xC2B2AE35 & _ALL
    return found ^ found >> 16
