"""Bounded decoding of item images: any file a user may have becomes uint8 RGB of one size, or None."""

import contextlib
import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_FILE_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
THREADS = min(8, os.cpu_count() or 1)  # that decode at once; each holds a whole picture, so no more than there are cores


def decode_image(path, size, max_file_bytes=MAX_FILE_BYTES, max_pixels=MAX_PIXELS):
    """Read one image file.

    Args:
        path (Path): JPEG, PNG or WebP; of an animation, the first frame.
        size (tuple): (width, height) in pixels to resize to; the aspect ratio is not kept.
        max_file_bytes (int), max_pixels (int): larger files are refused before they are decoded.

    Returns:
        np.ndarray: uint8 [height, width, 3], or None for a file that is broken, too large or no image.
    """
    with _bombs_refused():
        return _decode(path, size, max_file_bytes, max_pixels)


@contextlib.contextmanager
def _bombs_refused():
    """PIL's warning of a huge picture as an error; around all threads that decode, since the filters of warnings are those of the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _decode(path, size, max_file_bytes=MAX_FILE_BYTES, max_pixels=MAX_PIXELS):
    try:
        if path.stat().st_size > max_file_bytes:
            raise ValueError(f"larger than {max_file_bytes} bytes")
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
        max_bytes (int): pixels beyond this are decoded anew each time, but for those read ahead last.
    """

    def __init__(self, paths, size, max_bytes=2**30):
        self.paths, self.size, self.broken = paths, tuple(size), set()
        self._kept, self._ahead, self._room = {}, {}, max_bytes // (3 * size[0] * size[1])

    def get(self, index):
        """Pixels of item `index`, uint8 [height, width, 3], or None where there is no image or it cannot be read."""
        if self._is_new(index):
            return self._add(index, decode_image(self.paths[index], self.size), {})
        return self._kept.get(index, self._ahead.get(index))

    def read_ahead(self, indices):
        """Decode the pictures of items that will be asked for one by one, several at a time.

        Pixels that find no room in the limit, at most a quarter as many again, are kept until the next call.
        """
        self._ahead = {}
        wanted = [index for index in dict.fromkeys(indices) if self._is_new(index)][: self._room - len(self._kept) + self._room // 4]
        if not wanted:
            return
        Image.init()  # PIL's plug-ins, which the first threads would all load
        with _bombs_refused(), ThreadPoolExecutor(THREADS) as pool:
            for index, pixels in zip(wanted, pool.map(lambda index: _decode(self.paths[index], self.size), wanted)):
                self._add(index, pixels, self._ahead)

    def _is_new(self, index):
        """Whether there is a picture to decode."""
        return self.paths[index] is not None and index not in self.broken and index not in self._kept and index not in self._ahead

    def _add(self, index, pixels, without_room):
        if pixels is None:
            self.broken.add(index)
        else:
            (self._kept if len(self._kept) < self._room else without_room)[index] = pixels
        return pixels
