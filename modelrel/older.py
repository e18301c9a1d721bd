"""`dataclass` for the Python 3.9 of an old model's environment, which knows neither `slots` nor `kw_only`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


def dataclass(*, frozen: bool, slots: bool = False, kw_only: bool = False) -> Callable[[type[Any]], type[Any]]:
    """Return the decorator of the standard library, without what Python 3.9 does not take."""
    del slots, kw_only  # they keep mistakes out while modelrel is written; nothing at run time rests on them
    return dataclasses.dataclass(frozen=frozen)
