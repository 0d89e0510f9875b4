"""Bounded decoding of item images: any file a user may have becomes uint8 RGB of one size, or None."""

import logging
import warnings

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_FILE_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000


def decode_image(path, size, max_file_bytes=MAX_FILE_BYTES, max_pixels=MAX_PIXELS):
    """Read one image file.

    Args:
        path (Path): JPEG, PNG or WebP; of an animation, the first frame.
        size (tuple): (width, height) in pixels to resize to; the aspect ratio is not kept.
        max_file_bytes (int), max_pixels (int): larger files are refused before they are decoded.

    Returns:
        np.ndarray: uint8 [height, width, 3], or None for a file that is broken, too large or no image.
    """
    try:
        if path.stat().st_size > max_file_bytes:
            raise ValueError(f"larger than {max_file_bytes} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels")
                return np.asarray(_to_rgb(image, size).resize(size, Image.Resampling.BICUBIC), dtype=np.uint8).copy()
    except Exception as error:  # a hostile or cut file can raise anything from inside a PIL plug-in
        logging.getLogger().debug("%s: not used (%s)", path, error)
        return None


def _to_rgb(image, size):
    if image.format == "JPEG":
        image.draft("RGB", (2 * size[0], 2 * size[1]))  # decodes large JPEGs at a fraction of their size
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits: PIL's own conversion would clip at 255
        values = np.asarray(image, dtype=np.float32)
        return Image.fromarray((values / 257.0).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


class ImageStore:
    """Decoded pixels of all items at one size, kept in memory up to a limit.

    Args:
        paths (list): file of each item, or None.
        size (tuple): (width, height).
        max_bytes (int): pixels beyond this are decoded anew each time.
    """

    def __init__(self, paths, size, max_bytes=2**30):
        self.paths, self.size, self.broken = paths, tuple(size), set()
        self._cache, self._room = {}, max_bytes // (3 * size[0] * size[1])

    def get(self, index):
        """Pixels of item `index`, uint8 [height, width, 3], or None where there is no image or it cannot be read."""
        path = self.paths[index]
        if path is None or index in self.broken:
            return None
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = decode_image(path, self.size)
            if pixels is None:
                self.broken.add(index)
            elif len(self._cache) < self._room:
                self._cache[index] = pixels
        return pixels
