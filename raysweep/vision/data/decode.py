"""Decodes rows to uint8 pixels of one size with Pillow, on as many threads as the process may use cores.

Pillow releases the interpreter's lock while it decodes and resizes. So threads are enough, and nothing is copied
between processes.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from raysweep.errors import DataError
from raysweep.vision.data.raw import Encoded, read_file

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Formats that are opened. EPS, for one, is not, because Pillow hands it to another program."""
MAX_PIXELS = 50_000_000
"""Most pixels of an image. No training set has larger ones, but decompression bombs do."""
ROWS_A_TASK = 16
"""Images that a thread decodes at a time. Two tasks a thread and one more wait with their images, so that memory stays
small whatever the number of images is."""


class Undecodable(Exception):
    """An image that cannot be decoded, and why."""


def decode_all(images: Iterable[Encoded], image_size: int | None) -> Iterator[Pixels | Undecodable]:
    """Yield the decoded images in order; in place of one that cannot be decoded, yield the reason."""
    workers = len(os.sched_getaffinity(0))
    source = iter(images)
    waiting: deque[Future[list[Pixels | Undecodable]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while batch := list(islice(source, ROWS_A_TASK)):
                waiting.append(pool.submit(lambda rows: [_decode(row, image_size) for row in rows], batch))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(encoded: Encoded, image_size: int | None) -> Pixels | Undecodable:
    """Return one image as 3 x H x W; resizing is bicubic with antialiasing and does not keep the aspect ratio."""
    try:
        image = _open(read_file(encoded) if isinstance(encoded, Path) else encoded).convert("RGB")
    except Exception as error:  # Pillow's readers raise almost anything on corrupt bytes
        return Undecodable(str(error) or type(error).__name__)
    if image_size is not None and image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _open(encoded: bytes | npt.NDArray[np.uint8] | DataError | None) -> Image.Image:
    if encoded is None:
        raise Undecodable("no image")
    if isinstance(encoded, DataError):
        raise encoded
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Undecodable(f"too large: {error}") from error
    except UnidentifiedImageError as error:
        raise Undecodable(f"not an image of a known format ({', '.join(FORMATS)})") from error
    if image.width * image.height > MAX_PIXELS:
        raise Undecodable(f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are decoded")
    return image
