"""Files of records, in Parquet, written by a thread: what a disk does can delay or lose records, but no request.

A file is written under a temporary name and gets its own when it is complete, so whoever reads the folder sees whole
files only. While the disk refuses (full, gone, read-only), what was taken waits in memory, and what finds no room
there is dropped and counted; when the disk is back, all that waited is written.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import secrets
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from .options import Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .options import Settings

MOST_BYTES: Final = 32 * 1024 * 1024
"""What may wait in memory."""

MOST_RECORDS: Final = 20_000
TOGETHER: Final = 256
"""How many records are made into columns at once: more would keep Python's lock from the requests for too long."""

COLLECT_S: Final = 0.2
RETRY_S: Final = 1.0
CROWDED_S: Final = 60.0
CLOSE_S: Final = 5.0
"""How long the end of the server waits for the disk."""

GROUP_BYTES: Final = 1024 * 1024
GROUP_ROWS: Final = 16_384
ORPHAN_S: Final = 3600.0
_log: Final = logging.getLogger("modelrel.serving")


class Sheet(Protocol):
    """A kind of file: its columns, and how records become rows of them.

    ``kind``, ``name`` and ``version`` are in the names of the files, ``schema`` is pyarrow's.
    """

    kind: str
    name: str
    version: str
    schema: Any

    def fitting(self, content: Any) -> Sheet:
        """Return the sheet that a record belongs on, which is nearly always this one."""

    def table(self, contents: Sequence[Any]) -> Any:
        """Return records as a table of ``schema``. Raises ``ValueError`` or ``TypeError`` for what does not fit."""


class Record(NamedTuple):
    """Something to be written on a sheet: so many rows, about so many bytes."""

    sheet: Sheet
    rows: int
    size: int
    content: Any


class RecordFiles:
    """The files of one process in one folder. ``written`` and ``lost`` count rows by the kind of their sheet."""

    def __init__(self, folder: str, settings: Settings) -> None:
        """Make the folder where there is none. Raises ``Unusable``, also where pyarrow is not installed."""
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise Unusable("the prediction log needs pyarrow: pip install pyarrow") from error
        self._writer = pyarrow.parquet.ParquetWriter
        self._concatenated = pyarrow.concat_tables
        self.folder = Path(folder)
        self.written: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._max_bytes = settings.log_max_mb * 1e6
        self._max_s = settings.log_max_s
        self._mark = f"w{settings.worker}-{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._queue: deque[Record] = deque()
        self._bytes = 0
        self._crowded_at = -CROWDED_S
        self._failing = ""
        self._retry_at = 0.0
        self._lost_before = 0
        self._files: dict[Sheet, _File] = {}
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._prepare()
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """What waits in memory, in bytes."""
        return self._bytes

    def add(self, record: Record) -> bool:
        """Take a record, from any thread and without waiting; False where there is no room, and it was dropped."""
        with self._lock:
            room = self._bytes + record.size <= MOST_BYTES and len(self._queue) < MOST_RECORDS
            room = room and not self._stop.is_set()  # a thread may still be computing when the server ends
            now = time.monotonic() if not room else 0.0
            crowding = now > self._crowded_at + CROWDED_S
            if room:
                self._bytes += record.size
                self._queue.append(record)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_on, name="records", daemon=True)
                    self._thread.start()
            else:
                self.lost[record.sheet.kind] += record.rows
                self._crowded_at = now
        if not self._awake.is_set():
            self._awake.set()
        if crowding and not self._failing:
            _log.error("the disk of %s is too slow for the prediction log: records are dropped", self.folder)
        return room

    def close(self) -> None:
        """Complete the files. What the disk has not taken after ``CLOSE_S`` seconds is lost."""
        self._stop.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _prepare(self) -> None:
        """Try the folder, and remove what crashed servers left half written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            trial = self.folder / f".trial-{self._mark}.tmp"
            trial.open("xb").close()
            trial.unlink()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a full disk is no reason to answer nobody
                raise Unusable(f"--log-predictions cannot write to {self.folder}: {error.strerror}") from error
        # A file is completed when it is `--log-max-s` old. So one that was not written to for much longer is nobody's.
        dead = time.time() - self._max_s - ORPHAN_S
        for path in self.folder.glob(".*.parquet.tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < dead:
                    path.unlink()

    def _write_on(self) -> None:
        while True:
            self._awake.wait(self._pause())
            self._stop.wait(COLLECT_S)
            self._awake.clear()
            stopping = self._stop.is_set()
            if stopping or time.monotonic() >= self._retry_at:
                self._turn(stopping)
            if stopping:
                self._give_up()
                return

    def _pause(self) -> float | None:
        """Return the seconds until a file is complete or the disk is tried again; None where nothing is open."""
        if self._failing:
            return max(self._retry_at - time.monotonic(), 0.0)
        ends = [file.began + self._max_s for file in self._files.values()]
        return max(min(ends) - time.monotonic(), 0.0) if ends else None

    def _turn(self, stopping: bool) -> None:
        """Write what waits, and complete the files that are due."""
        try:
            self._move()  # what the disk refused before
            while self._queue:
                for sheet, records in self._taken().items():
                    self._put(sheet, records)
                self._move()
                time.sleep(0)  # requests first
            now = time.monotonic()
            for file in self._files.values():
                file.due = stopping or now >= file.began + self._max_s
            self._move()
        except OSError as error:
            if not self._failing:
                self._failing = error.strerror or type(error).__name__
                _log.error("the prediction log cannot write to %s: %s", self.folder, self._failing)
            self._retry_at = time.monotonic() + RETRY_S
            return
        if self._failing:
            lost = self.lost.total() - self._lost_before
            _log.warning("the prediction log writes to %s again; %d rows were lost", self.folder, lost)
            self._failing = ""
        self._lost_before = self.lost.total()

    def _taken(self) -> dict[Sheet, list[Record]]:
        taken: dict[Sheet, list[Record]] = {}
        for _ in range(min(len(self._queue), TOGETHER)):
            record = self._queue.popleft()
            with self._lock:
                self._bytes -= record.size
            taken.setdefault(record.sheet.fitting(record.content), []).append(record)
        return taken

    def _put(self, sheet: Sheet, records: list[Record]) -> None:
        """Pack records into the file of their sheet, in memory."""
        try:
            table = sheet.table([record.content for record in records])
        except (ValueError, TypeError, OverflowError):  # pyarrow's errors are of these; a bug must not end the thread
            self.lost[sheet.kind] += sum(record.rows for record in records)
            _log.exception("records of %s cannot be written as Parquet", sheet.name)
            return
        file = self._files.get(sheet)
        if file is None:
            path = self.folder / self._file_name(sheet)
            file = self._files[sheet] = _File(path, sheet, self._writer, self._concatenated)
        file.put(table)

    def _move(self) -> None:
        """Move what is packed to the disk, and complete the files that are large or old enough. Raises ``OSError``."""
        for sheet, file in list(self._files.items()):
            if not file.due and file.size < self._max_bytes:
                file.drain()
                continue
            try:
                file.complete()
            except FileNotFoundError:
                if file.created:  # it has gone with its folder; what is not yet in a file still waits in memory
                    file.abandon()
                    self.lost[sheet.kind] += file.rows
                    del self._files[sheet]
                raise
            self.written[sheet.kind] += file.rows
            del self._files[sheet]

    def _file_name(self, sheet: Sheet) -> str:
        which = "-".join(quote(part, safe="")[:80] for part in (sheet.kind, sheet.name, sheet.version) if part)
        began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{which}-{began}-{self._mark}-{next(self._numbers)}.parquet"

    def _give_up(self) -> None:
        for file in self._files.values():
            file.abandon()
            self.lost[file.sheet.kind] += file.rows
        for record in self._queue:
            self.lost[record.sheet.kind] += record.rows
        self._files.clear()
        self._queue.clear()


class _Memory:
    """Where a Parquet writer writes to: pieces that are then moved to the disk, as often as it takes."""

    closed = False

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing; ``_File.drain`` does."""

    def close(self) -> None:
        """Do nothing; the writer calls it."""


class _File:
    """One file: row groups that fill up in memory, a Parquet writer, and what the disk has of it.

    Whatever raises ``OSError`` may be called again, and goes on where it stopped.
    """

    def __init__(self, path: Path, sheet: Sheet, writer: Any, concatenated: Any) -> None:
        self.sheet = sheet
        self.began = time.monotonic()
        self.rows = 0
        self.created = False
        self.due = False
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._memory = _Memory()
        self._writer = writer(self._memory, sheet.schema, compression="zstd")
        self._concatenated = concatenated
        self._tables: list[Any] = []
        self._waiting = Counter[str]()
        self._descriptor = -1
        self._ended = False

    @property
    def size(self) -> int:
        """The bytes of the file so far; rows that are not yet packed count with their full size."""
        return self._memory.size + self._waiting["bytes"]

    def put(self, table: Any) -> None:
        self.rows += table.num_rows
        self._tables.append(table)
        self._waiting["bytes"] += table.nbytes
        self._waiting["rows"] += table.num_rows
        if self._waiting["bytes"] >= GROUP_BYTES or self._waiting["rows"] >= GROUP_ROWS:
            self._group()

    def _group(self) -> None:
        if self._tables:
            self._writer.write_table(self._concatenated(self._tables))
            self._tables = []
            self._waiting.clear()

    def drain(self) -> None:
        """Move to the disk what is packed. Raises ``OSError``."""
        pieces = self._memory.pieces
        if not pieces:
            return
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self._temporary, flags, 0o640)
            self.created = True
        while pieces:
            done = os.write(self._descriptor, pieces[0])
            if done == len(pieces[0]):
                pieces.popleft()
            else:
                pieces[0] = pieces[0][done:]

    def complete(self) -> None:
        """Write the rest and give the file its name. Raises ``OSError``."""
        if not self._ended:
            self._group()
            self._writer.close()
            self._ended = True
        self.drain()
        os.fsync(self._descriptor)
        self._temporary.rename(self._path)
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Leave nothing of the file."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self._temporary.unlink()
