"""Pictures of items as small JPEGs, each once, within a number of bytes."""

import base64
import io

from PIL import Image

from recbole_molar.data.image import FORMATS, decode_image

LARGE, SMALL = ((108, 162), 70), ((76, 114), 60)  # width and height in pixels that a picture fits into, and JPEG quality


def thumbnail(path, size=LARGE):
    """One picture as base64 JPEG in its own proportions, or None where it cannot be read."""
    box, quality = size
    try:
        with Image.open(path, formats=FORMATS) as image:
            scale = min(box[0] / image.width, box[1] / image.height, 1.0)
            pixels = decode_image(path, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError):
        return None
    if pixels is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def gather(wanted, room):
    """As many pictures as fit, in the order given.

    Args:
        wanted (dict): key -> (path or None, LARGE or SMALL); room (int): bytes.

    Returns:
        tuple: key -> base64 JPEG, how many did not fit.
    """
    found, left_out = {}, 0
    for key, (path, size) in wanted.items():
        data = thumbnail(path, size) if path and not left_out else None
        if data and len(data) + len(key) + 16 <= room:
            found[key], room = data, room - len(data) - len(key) - 16
        else:
            left_out += bool(path and (data or left_out))
    return found, left_out
