"""Plots as SVG text, for a page that gives them their colours (classes `mark`, `other`, `grid`, `edge`, `limit`).

Every plot is 360 units wide, so that its letters are as large as the page's on a telephone; it has a title and a
description for those who do not see it. The same figures give the same text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from modelrel import figures

WIDTH: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 12, 40
_HEIGHT: Final = 220
_ROW: Final = 24
_LETTER: Final = 6.6
"""Units that a letter of 11 takes, on average."""

_SPREAD: Final = 1e4
"""How many times the typical number the largest may be before an axis is logarithmic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A figure in a row of a plot: what it is (its place in the legend), and how large."""

    kind: int
    value: float


def histogram(exact: int, halves: Iterable[tuple[int, int]], limit: float, said: str) -> str:
    """Return how errors lie: (h, count) has those from 10^(h/2) on, half a power of ten wide; `limit` is allowed."""
    counts = dict(halves)
    ends = [*counts, *([math.floor(2 * math.log10(limit))] if limit > 0 else [])] or [0]
    low, high = min(ends) - min(ends) % 2, max(ends) + 2 - max(ends) % 2
    gap = 40 if exact else 0
    left, right = _LEFT + gap, WIDTH - _RIGHT
    step = (right - left) / (high - low)
    most = max([exact, *counts.values(), 1])
    bottom, tall = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    decades = max(1, math.ceil(math.log10(most + 1)))

    def top(count: float) -> float:
        # a single row must be seen beside thousands: half a step stands below one row
        return bottom - tall * (math.log10(count) + 0.15) / (decades + 0.15) if count else bottom

    parts = [_level(top(10**power), _short(10**power)) for power in range(decades + 1)]
    bars: list[tuple[float, float, int, str]] = [(_LEFT + 4, gap - 20, exact, "no error")] if exact else []
    bars += [
        (left + (half - low) * step, step, count, f"error from {10 ** (half / 2):.2g}")
        for half, count in counts.items()
    ]
    parts += [
        f'<rect class="mark" x="{x:.1f}" y="{top(count):.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{bottom - top(count):.1f}"><title>{count:,} rows, {name}</title></rect>'
        for x, width, count, name in bars
    ]
    parts += [
        f'<text class="tick" x="{_LEFT + gap / 2 - 6:.1f}" y="{bottom + 15}" text-anchor="middle">0</text>'
    ] * bool(exact)
    every = max(2, 2 * math.ceil((high - low) / 2 / 5))
    for half in range(low, high + 1, every):
        x = left + (half - low) * step
        parts.append(_tick(x, bottom, f"10{_power(half // 2)}"))
    if limit > 0:
        x = left + (2 * math.log10(limit) - low) * step
        parts.append(f'<path class="limit" d="M{x:.1f} {_TOP}V{bottom}"/>')
        anchor, dx = ("end", -4) if x > WIDTH / 2 else ("start", 4)
        parts.append(f'<text class="limit" x="{x + dx:.1f}" y="{_TOP + 9}" text-anchor="{anchor}">allowed</text>')
    parts += [_edge(bottom), _under("largest absolute error of a row"), _beside("rows (log)")]
    return _svg(_HEIGHT, "Error distribution", said, parts)


def scatter(pairs: Sequence[tuple[float, float]], said: str) -> str:
    """Return numbers of the original (across) against those of the copy (up); what is on the line is the same."""
    values = [value for pair in pairs for value in pair] or [0.0]
    size = sorted(abs(value) for value in values)
    wide = size[-1] > _SPREAD * max(size[len(size) // 2], 1e-12)
    scale = _signed(max(size[len(size) // 2], 1e-6)) if wide else float
    low, high = min(values), max(values)
    ticks = _powers(low, high) if wide else _nice(low, high)
    low, high = min(low, *ticks), max(high, *ticks)
    first, last = scale(low), scale(high)
    span = (last - first) or 1.0
    bottom, right = _HEIGHT - _BOTTOM, WIDTH - _RIGHT

    def across(value: float) -> float:
        return _LEFT + 4 + (right - _LEFT - 8) * (scale(value) - first) / span

    def up(value: float) -> float:
        return bottom - 4 - (bottom - _TOP - 8) * (scale(value) - first) / span

    parts = [_level(up(tick), _axis(tick)) for tick in ticks]
    parts += [_tick(across(tick), bottom, _axis(tick)) for tick in ticks]
    parts.append(f'<path class="same" d="M{across(low):.1f} {up(low):.1f}L{across(high):.1f} {up(high):.1f}"/>')
    parts += [f'<circle class="mark dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in pairs]
    parts += [_edge(bottom), _under("original"), _beside("copy")]
    return _svg(_HEIGHT, "Copy against original", said, parts)


def bars(parts_of: Mapping[str, int], said: str) -> str:
    """Return sizes by part, the largest first, as one bar each."""
    rows = sorted(parts_of.items(), key=lambda pair: (-pair[1], pair[0]))
    names = [_cut(name, 16) for name, _ in rows]
    left = min(120, max(len(name) for name in names) * _LETTER + 8) if rows else 0
    wide, most = WIDTH - left - 62, max([size for _, size in rows] or [1]) or 1
    parts = []
    for index, (name, size) in enumerate(rows):
        y = index * _ROW
        long = max(wide * size / most, 1)
        parts.append(
            f'<text class="name" x="{left - 6:.0f}" y="{y + 16}" text-anchor="end">{escape(names[index])}</text>'
        )
        parts.append(f'<rect class="mark" x="{left:.0f}" y="{y + 5}" width="{long:.1f}" height="14" rx="2">'
                     f"<title>{escape(name)}: {size:,} bytes</title></rect>")  # fmt: skip
        parts.append(f'<text class="figure" x="{left + long + 5:.1f}" y="{y + 16}">{figures.megabytes(size)}</text>')
    return _svg(max(len(rows), 1) * _ROW, "Sizes by part", said, parts)


def ranges(rows: Mapping[str, Sequence[Mark]], said: str) -> str:
    """Return times in seconds, a row for each name, on one logarithmic axis; each kind of mark has its own shape."""
    values = [mark.value for marks in rows.values() for mark in marks if mark.value > 0] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    left = min(120, max(len(_cut(name, 16)) for name in rows) * _LETTER + 10) if rows else _LEFT
    bottom, right = _TOP + len(rows) * _ROW, WIDTH - 24

    def across(value: float) -> float:
        return left + (right - left) * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        x = across(10.0**power)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP - 6}V{bottom}"/>')
        parts.append(_tick(x, bottom, figures.seconds(10.0**power)))
    for index, (name, marks) in enumerate(rows.items()):
        y = _TOP + index * _ROW + _ROW / 2
        parts.append(
            f'<text class="name" x="{left - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{escape(_cut(name, 16))}</text>'
        )
        ends = [across(mark.value) for mark in marks]
        parts.append(f'<path class="between" d="M{min(ends):.1f} {y:.1f}H{max(ends):.1f}"/>')
        parts += [_shape(mark, across(mark.value), y) for mark in marks]
    parts.append(_edge(bottom, left))
    return _svg(bottom + 22, "Latency", said, parts)


def key(kind: int) -> str:
    """Return the shape of a kind of mark, for a legend."""
    return f'<svg class="key" viewBox="0 0 12 12" aria-hidden="true">{_shape(Mark(kind=kind, value=0), 6, 6, "")}</svg>'


def _shape(mark: Mark, x: float, y: float, said: str | None = None) -> str:
    title = f"<title>{figures.seconds(mark.value)}</title>" if said is None else ""
    shapes = (
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>',
        f'<rect class="other" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">{title}</rect>',
        f'<path class="third" d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z">{title}</path>',
    )
    return shapes[mark.kind % len(shapes)]


def _svg(height: float, title: str, said: str, parts: Iterable[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(f"{title}: {said}")}">'
        f"<title>{escape(title)}</title><desc>{escape(said)}</desc>{''.join(parts)}</svg>"
    )


def _level(y: float, text: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _tick(x: float, bottom: float, text: str) -> str:
    mark = f'<path class="edge" d="M{x:.1f} {bottom:.1f}v4"/>'
    return f'{mark}<text class="tick" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{text}</text>'


def _edge(bottom: float, left: float = _LEFT) -> str:
    return f'<path class="edge" d="M{left:.1f} {bottom:.1f}H{WIDTH - _RIGHT}"/>'


def _under(text: str) -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{text}</text>'


def _beside(text: str) -> str:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return f'<text class="label" transform="rotate(-90)" x="{-middle:.0f}" y="10" text-anchor="middle">{text}</text>'


def _short(count: int) -> str:
    return f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1000}k" if count >= 1000 else str(count)


def _power(power: int) -> str:
    return f'<tspan dy="-4" font-size="8">{"−" if power < 0 else ""}{abs(power)}</tspan>'


def _axis(value: float) -> str:
    return f"{value:.4g}".replace("-", "−").replace("e+0", "e").replace("e−0", "e−").replace("e+", "e")


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _nice(low: float, high: float) -> list[float]:
    """Return four to eight round numbers from around `low` to around `high`."""
    span = high - low or max(abs(high), 1.0)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    return [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _signed(unit: float) -> Callable[[float], float]:
    """Return a scale that is linear around 0, and logarithmic beyond `unit`."""
    return lambda value: math.copysign(math.log10(1 + abs(value) / unit), value)


def _powers(low: float, high: float) -> list[float]:
    """Return 0 and a few powers of ten of each sign that there is."""

    def some(most: float) -> list[float]:
        power = math.ceil(math.log10(most)) if most > 0 else 0
        return [10.0**power, 10.0 ** (power - max(2, abs(power) // 2))] if most > 0 else []

    return sorted([0.0, *some(high), *(-one for one in some(-low))])
