"""Rows of the data sets that the training run logged: read as data, bounded, evenly picked."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Invalid
from modelrel.probes import rows
from modelrel.probes.budget import Queue
from modelrel.probes.generated import Group
from modelrel.tensors import Array
from modelrel.values import Signature, SourceModel

if TYPE_CHECKING:
    import pandas as pd

SOURCE: Final = "training data"
_MOST_ROWS: Final = 2000
_MOST_BYTES: Final = 2**28
_CHUNK: Final = 10_000
"""Rows that are read at once."""
_BLOCK: Final = 100
"""Rows that are asked together."""


@dataclass(frozen=True, slots=True)
class Training:
    """What can be asked: a queue (empty where nothing can), and a sentence about what is left out."""

    queue: Queue
    left_out: str


def logged(source: SourceModel) -> Training:
    """Return rows of the logged data sets, 2,000 at most, in an order of which every part is spread evenly.

    A data set that cannot be read, or does not fit the signature, is left out and said.
    """
    assert source.signature is not None
    readable = {one.path: one for one in source.datasets if one.path}
    said = [f"{one.name}: {one.unread}" for one in source.datasets if one.unread]
    parts: list[dict[str, Array]] = []
    for path, one in readable.items():
        most = _MOST_ROWS // len(readable)
        try:
            part, count = _read(Path(path), source.signature, max(most, 1))
        except Invalid as error:
            said.append(f"{one.name}: {error.message}")
            continue
        parts.append(part)
        if count > tensors.rows(part):
            said.append(f"{one.name} has {count:,} rows, of which {tensors.rows(part):,} are picked evenly")
    found = _groups(tensors.stack(list(parts))) if parts else []
    if not source.datasets:
        said.append("the run logged no data set")
    return Training(Queue(SOURCE, sum(group.items for group in found), iter(found)), "; ".join(dict.fromkeys(said)))


def _groups(all_rows: dict[str, Array]) -> list[Group]:
    mixed = np.random.default_rng(0).permutation(tensors.rows(all_rows))
    pieces = (mixed[at : at + _BLOCK] for at in range(0, len(mixed), _BLOCK))
    return [Group(SOURCE, tensors.take(all_rows, piece)) for piece in pieces]


def _read(path: Path, signature: Signature, most: int) -> tuple[dict[str, Array], int]:
    """Return at most `most` rows of a file, fitted to the signature, and how many it has.

    Raises `Invalid` where it is gone, no regular file, too large, damaged, or has other columns.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device would never end
            raise Invalid(f"{path.name} is not a file", "")
        if found.st_size > _MOST_BYTES:
            raise Invalid(f"{path.name} has {found.st_size:,} bytes, more than the {_MOST_BYTES:,} that are read", "")
        frame, count = _evenly(_chunks(path, signature), most)
    except FileNotFoundError as error:
        raise Invalid(f"{path.name} is not where it was logged", "") from error
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise Invalid(f"{path.name} cannot be read: {said}", "") from error
    if not count:
        raise Invalid(f"{path.name} holds no rows", "")
    return rows.fitted(frame, signature, path.name), count


def _chunks(path: Path, signature: Signature) -> Iterator[pd.DataFrame]:
    """Yield the rows of a csv or parquet file, some at a time; of named columns only those of the signature."""
    named = {spec.name for spec in signature.inputs} if signature.kind == "columns" else None
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            kept = None if named is None else [name for name in file.schema_arrow.names if name in named]
            for batch in file.iter_batches(batch_size=_CHUNK, columns=kept):
                yield batch.to_pandas()
        return
    import pandas as pd

    words: Any = {spec.name: str for spec in signature.inputs if spec.datatype == "BYTES"}
    # Before 3.1, pandas reads numbers off by a last bit, to the other side of a threshold, unless it is told not to.
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact: Any = {"float_precision": "round_trip"} if version < (3, 1) else {}
    chosen = None if named is None else lambda name: name in named
    with pd.read_csv(path, dtype=words, usecols=chosen, chunksize=_CHUNK, compression=None, **exact) as reader:
        yield from reader


def _evenly(chunks: Iterator[pd.DataFrame], most: int) -> tuple[pd.DataFrame, int]:
    """Return `most` rows at equal distances (or all there are), and how many there were; few are held at a time."""
    import pandas as pd

    kept: list[pd.DataFrame] = []
    step, seen = 1, 0
    for chunk in chunks:
        kept.append(chunk.iloc[-seen % step :: step])
        seen += len(chunk)
        while sum(map(len, kept)) > 2 * most:
            kept = [pd.concat(kept, ignore_index=True).iloc[::2]]
            step *= 2
    if not kept:
        return pd.DataFrame(), 0
    frame = pd.concat(kept, ignore_index=True)
    picked = np.unique(np.linspace(0, len(frame) - 1, min(len(frame), most)).astype(int))
    return frame.iloc[picked].reset_index(drop=True), seen
