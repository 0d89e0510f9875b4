"""One picture from bytes of unknown origin: decoded within bounds, fitted into a box, stored as JPEG in one step."""

import hashlib
import io
import itertools
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from dataset_converters.causes import Refused

# Formats are named one by one: Pillow knows others that start programs (EPS: Ghostscript) or are rarely read by anybody.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")  # where the recommender looks for `<item_id><extension>`
PARTIAL = ".part"
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # devices on Windows, with any extension
_count = itertools.count()


def usable_id(item_id):
    """Whether `<item_id>.jpg` is a plain file name, here and where the data set may be taken, that the recommender finds again."""
    name = f"{item_id}.jpg"
    if not item_id.isprintable() or set(item_id) & set('/\\') or RESERVED.fullmatch(item_id):
        return False
    if os.name == "nt" and set(item_id) & set('<>:"|?*'):
        return False
    try:
        return os.path.splitext(name) == (item_id, ".jpg") and len(os.fsencode(name)) <= 255
    except UnicodeEncodeError:
        return False


def store(data, path, box, max_pixels):
    """Decode `data` and write it to `path`, whole or not at all.

    Args:
        data (bytes): a file in one of FORMATS, whatever its name or its type were said to be.
        path (Path): the JPEG to write.
        box (tuple): (width, height) in pixels to fit into; the aspect ratio is kept, nothing is enlarged.
        max_pixels (int): more are refused before they are decoded.

    Returns:
        dict: `bytes`, `sha256` and `size` [width, height] of the file written.

    Raises:
        Refused: no image, a broken one, too many pixels.
        OSError: the file cannot be written.
    """
    image = decode(data, box, max_pixels)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()
    partial = Path(path).parent / f".{os.getpid()}-{next(_count)}{PARTIAL}"
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave the name without the content: the next run would take it for stored
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "size": list(image.size)}


def decode(data, box, max_pixels):
    """Bytes to an RGB image that fits into `box`; see :func:`store`."""
    try:
        Image.init()
        with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if image.width * image.height > max_pixels:
                raise Refused("too many pixels")
            image.draft("RGB", (2 * max(box), 2 * max(box)))  # large JPEGs are decoded at a fraction of their size
            image.load()  # of an animation, the first frame
            image = ImageOps.exif_transpose(image)
            profile = image.info.get("icc_profile")
            if not profile or image.mode not in ("CMYK", "L") or "transparency" in image.info:
                image = _to_rgb(image)
            image.thumbnail(box, Image.Resampling.LANCZOS)
            image = _to_rgb(_to_srgb(image, profile) if profile else image)
            image.info = {}  # else the comment of the source is written along
            return image
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused("not an image") from None
    except Image.DecompressionBombError:
        raise Refused("too many pixels") from None
    except Exception as error:  # a hostile or cut file can raise anything from inside a Pillow plug-in
        raise Refused("broken image") from error


def _to_srgb(image, profile):
    """The colours that the picture's own ICC profile means, where it fits the picture and can be read; else as they stand."""
    try:
        return ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ImportError):  # ImportError: a Pillow without LittleCMS
        return image


def _to_rgb(image):
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits: Pillow's own conversion would clip at 255
        values = np.asarray(image, dtype=np.float32)
        return Image.fromarray((values / 257.0).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
