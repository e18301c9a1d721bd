"""Encoded images (JPEG, PNG and what else Pillow reads) to the numbers that a network takes."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .faults import BadInput, BrokenAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

REQUIRES: Final = ("pillow",)

MODES: Final = {"RGB": 3, "L": 1}
"""Colours of the image -> channels."""

RESIZE: Final = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}
"""How it is resized -> Pillow's number for it (PIL.Image.Resampling)."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What is read. Pillow knows fifty formats, some by way of other programs; a client's bytes are not to be trusted."""

MOST_PIXELS: Final = 50_000_000
"""Of the image as sent: a few hundred bytes of PNG can claim gigabytes."""


def step(said: Mapping[str, Any]) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """Return what turns one array of encoded images, (N,) or (N, 1) of bytes or base64 text, into pixels.

    `said`: `size` [height, width]; `mode` "RGB" or "L"; `resize` (see RESIZE); `layout` "NHWC" or "NCHW"; `datatype`
    "FP32" or "UINT8"; and for FP32 `scale` and `offset`, one number or one per channel: pixel * scale + offset,
    pixels being 0 to 255. Gives (N, height, width, channels), or (N, channels, height, width).
    """
    height, width = (int(size) for size in said["size"])
    channels = MODES[said["mode"]]
    method = RESIZE[said.get("resize", "bilinear")]
    if not (0 < height <= 8192 and 0 < width <= 8192):
        raise BrokenAdapter(f"the size {[height, width]} is no image's")
    layout, datatype = said.get("layout", "NHWC"), said.get("datatype", "FP32")
    if layout not in ("NHWC", "NCHW") or datatype not in ("FP32", "UINT8"):
        raise BrokenAdapter(f"the layout {layout!r} with {datatype!r} is none that images can have")
    scale, offset = (
        np.broadcast_to(np.asarray(said.get(name, usual), np.float32), channels)
        for name, usual in (("scale", 1.0), ("offset", 0.0))
    )

    def run(given: Sequence[Array]) -> Sequence[Array]:
        (images,) = given
        pixels = np.empty((images.size, height, width, channels), np.uint8)
        for row, item in enumerate(images.ravel()):
            pixels[row] = _decoded(item, row, said["mode"], (width, height), method).reshape(height, width, channels)
        found = pixels if datatype == "UINT8" else pixels.astype(np.float32) * scale + offset
        return [np.ascontiguousarray(found.transpose(0, 3, 1, 2) if layout == "NCHW" else found)]

    return run


def _decoded(item: object, row: int, mode: str, size: tuple[int, int], method: int) -> Array:
    from PIL import Image

    content = _bytes(item, row)
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
        pixels = opened.width * opened.height
        image = opened.convert(mode) if pixels <= MOST_PIXELS else None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise BadInput(f"row {row} is no image ({', '.join(FORMATS)}): {error}") from error
    if image is None:
        raise BadInput(f"the image of row {row} has {pixels:,} pixels, more than {MOST_PIXELS:,}")
    return np.asarray(image if image.size == size else image.resize(size, method))


def _bytes(item: object, row: int) -> bytes:
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str):
        raise BadInput(f"row {row} is {type(item).__name__}, and not an image as base64 text")
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"row {row} is not base64: {error}") from error
