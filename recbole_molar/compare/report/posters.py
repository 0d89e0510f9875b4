"""Pictures of items as small JPEGs, each once, within a number of bytes."""

import base64
import io

from PIL import Image

from recbole_molar.data.image import FORMATS, decode_image

BOX = (100, 150)  # pixels, width and height that a picture fits into
QUALITY = 68


def thumbnail(path):
    """One picture as base64 JPEG in its own proportions, or None where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            scale = min(BOX[0] / image.width, BOX[1] / image.height, 1.0)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError):
        return None
    pixels = decode_image(path, size)
    if pixels is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def gather(wanted, room):
    """As many pictures as fit, in the order given.

    Args:
        wanted (dict): key -> path or None; room (int): bytes.

    Returns:
        tuple: key -> base64 JPEG, how many did not fit.
    """
    found, left_out = {}, 0
    for key, path in wanted.items():
        data = thumbnail(path) if path and not left_out else None
        if data and len(data) + len(key) + 16 <= room:
            found[key], room = data, room - len(data) - len(key) - 16
        else:
            left_out += bool(path and (data or left_out))
    return found, left_out
