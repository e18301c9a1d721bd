"""What turns the served inputs into those of the model's graph, where a graph cannot: text, codes, encoded images.

`adapter.json` beside the model holds data alone; the code for each kind of step is a module here. The folder needs
the standard library, numpy, and what the modules' `REQUIRES` name, so that any package can carry it.

    {"schema": 1, "steps": [{"kind": "image", "takes": ["photo"], "gives": ["input"], ...}],
     "gives": [{"name": "input", "datatype": "FP32", "shape": [-1, 224, 224, 3]}]}

A step takes arrays of N rows by name and gives others; what no step takes goes to the graph as it is. Where `rows` is
there, the graph gets so many rows at a time at most: a matrix with a column for each word is large.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from . import image, text, tokenizer
from .faults import BadInput, BrokenAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["FILE", "Adapter", "BadInput", "BrokenAdapter", "load", "requires"]

FILE: Final = "adapter.json"
SCHEMA: Final = 1
LARGEST: Final = 256 * 2**20
"""Bytes of an adapter's file that are read at all."""

AT_ONCE: Final = 512
"""Rows for the graph at a time, where the file does not say: what a step gives can be much more than what it takes."""

Array = np.ndarray[Any, np.dtype[Any]]


class Kind(Protocol):
    """What a module of this folder offers."""

    @property
    def REQUIRES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The distributions that the step needs besides numpy."""
        ...

    def step(self, said: Mapping[str, Any]) -> Callable[[Sequence[Array]], Sequence[Array]]:
        """Return what turns the arrays of `takes` into those of `gives`; it raises `BadInput` for rows without sense.

        Raises `BrokenAdapter`, KeyError, TypeError or ValueError where `said` is not of this kind.
        """
        ...


KINDS: Final[dict[str, Kind]] = {"image": image, "text": text, "tokenizer": tokenizer}


class Adapter:
    """The steps of one file, ready to run; `gives` is name -> Open Inference datatype of the graph's inputs.

    `rows` is how many rows it is to be called for at a time; `images` names what it takes as encoded images.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        """Build the steps; raises as `Kind.step` does."""
        self.gives = {str(one["name"]): str(one["datatype"]) for one in said["gives"]}
        self.rows = min(max(int(said.get("rows", AT_ONCE)), 1), AT_ONCE)
        self.images = frozenset(str(name) for one in said["steps"] if one["kind"] == "image" for name in one["takes"])
        self._steps = [
            (list(map(str, one["takes"])), list(map(str, one["gives"])), KINDS[one["kind"]].step(one))
            for one in said["steps"]
        ]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the graph's inputs for N rows of the served ones; raises `BadInput`."""
        known = dict(inputs)
        for takes, gives, run in self._steps:
            found = run([known.pop(name) for name in takes])
            known.update(zip(gives, found, strict=True))
        return {name: known[name] for name in self.gives}


def load(path: Path) -> Adapter:
    """Return the adapter in a file; raises `BrokenAdapter` with one sentence."""
    said = _read(path)
    try:
        return Adapter(said)
    except BrokenAdapter as error:
        raise BrokenAdapter(f"{path} is no adapter: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenAdapter(f"{path} is no adapter: {type(error).__name__}: {error}") from error


def requires(path: Path) -> tuple[str, ...]:
    """Return the distributions that an adapter's steps need besides numpy, sorted; raises `BrokenAdapter`."""
    try:
        found = {name for one in _read(path)["steps"] for name in KINDS[one["kind"]].REQUIRES}
    except (KeyError, TypeError) as error:
        raise BrokenAdapter(f"{path} is no adapter: {type(error).__name__}: {error}") from error
    return tuple(sorted(found))


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise BrokenAdapter(f"{path} has {path.stat().st_size:,} bytes, and an adapter can have {LARGEST:,}")
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise BrokenAdapter(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BrokenAdapter(f"{path} is no JSON: {error}") from error
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise BrokenAdapter(f"{path} is no adapter of schema {SCHEMA}")
    return said
