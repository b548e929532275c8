"""Whether encoded pictures can be shown to a model: decodable, and not a decompression bomb."""

from __future__ import annotations

import io
import warnings

from PIL import Image

#: pixels; a benchmark's portraits have about a million
MAX_PIXELS = 50_000_000


def picture_problem(encoded: bytes | None, decode: bool = True) -> str:
    """What is wrong with an encoded picture, in a few words; "" if nothing.

    Args:
        encoded: its bytes.
        decode: decode it whole; else look at its header alone, which tells a bomb but not a truncated file.
    """
    if not encoded:
        return "the picture has no bytes"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return _opened(encoded, decode)
        except Image.DecompressionBombError as error:
            return f"image bomb: {error}"
        except (OSError, SyntaxError, ValueError) as error:
            return f"{len(encoded)} bytes do not decode as a picture: {error}"


def _opened(encoded: bytes, decode: bool) -> str:
    with Image.open(io.BytesIO(encoded)) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            return f"image bomb: {len(encoded)} bytes unpack to {width} x {height} pixels, at most {MAX_PIXELS} are taken"
        if decode:
            picture.load()
    return ""
