"""Decoding and storing one picture: every kind a shop may have, and what must not pass."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset_converters.causes import Refused
from dataset_converters.picture import decode, store, usable_id
from hostile_server import GOOD, picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
BOX, MOST = (224, 336), 1_000_000


def colour(data):
    """Middle pixel after decoding."""
    image = decode(data, BOX, MOST)
    assert image.mode == "RGB"
    return image.getpixel((image.width // 2, image.height // 2))


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def near(left, right, by=4):
    return max(abs(a - b) for a, b in zip(left, right, strict=True)) <= by


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(form):
    assert near(colour(picture(form=form)), (255, 0, 0))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_modes(mode):
    assert colour(encoded(Image.new("RGB", (40, 60), "white").convert(mode))) == (255, 255, 255)


def test_cmyk():
    assert near(colour(encoded(Image.new("RGB", (40, 60), (200, 30, 60)).convert("CMYK"), "JPEG", quality=95)), (200, 30, 60), by=8)


def swapped_profile():
    """An ICC profile as valid as sRGB's, in which red is blue: the tags of the two primaries are exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colours_are_those_of_the_picture_s_own_profile(form):
    red = Image.new("RGB", (40, 60), (255, 0, 0))
    assert near(colour(encoded(red, form, icc_profile=swapped_profile())), (0, 0, 255))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert near(colour(encoded(red, form, icc_profile=own)), (255, 0, 0))
    for useless in (b"no profile", swapped_profile()[:150], b"\0" * 128):
        assert near(colour(encoded(red, form, icc_profile=useless)), (255, 0, 0))


@pytest.mark.parametrize("mode, form", [("CMYK", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG")])
def test_a_profile_of_another_kind_of_colour_changes_nothing(mode, form):
    grey = Image.new("RGB", (40, 60), (153, 153, 153)).convert(mode)
    assert near(colour(encoded(grey, form, icc_profile=swapped_profile())), (153, 153, 153), by=8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    grey = Image.fromarray(np.full((60, 40), 128 * 257, dtype=np.uint16))
    assert colour(encoded(grey, form)) == (128, 128, 128)


def test_transparency_turns_white():
    palette = Image.new("P", (40, 60), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert colour(encoded(palette, transparency=0)) == (255, 255, 255)
    assert colour(encoded(palette, "GIF", transparency=0)) == (255, 255, 255)
    assert colour(encoded(palette, transparency=1)) == (0, 0, 0)
    assert near(colour(encoded(Image.new("RGBA", (40, 60), (0, 0, 0, 128)))), (127, 127, 127))
    assert colour(encoded(Image.new("RGB", (40, 60), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (40, 60), name) for name in ("red", "blue", "lime")]
    assert near(colour(encoded(frames[0], form, save_all=True, append_images=frames[1:])), (255, 0, 0))


def test_a_camera_s_jpeg_with_a_second_picture_inside():
    assert near(colour(encoded(Image.new("RGB", (40, 60), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 60), "blue")])), (255, 0, 0))


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    turned = decode(encoded(image, "JPEG", exif=exif, quality=95), BOX, MOST)
    assert turned.size == (40, 60) and near(turned.getpixel((20, 10)), (255, 0, 0)) and near(turned.getpixel((20, 50)), (0, 0, 255))


@pytest.mark.parametrize("size, stored", [
    ((1000, 1000), (224, 224)), ((448, 336), (224, 168)), ((100, 900), (37, 336)), ((40, 60), (40, 60)), ((5000, 1), (224, 1)),
])
def test_it_fits_into_the_box_and_is_not_enlarged(size, stored):
    assert decode(picture(size), BOX, 5_000_000).size == stored


def test_what_is_stored(tmp_path):
    said = store(picture(comment=b"from somewhere"), tmp_path / "1.jpg", BOX, MOST)
    content = (tmp_path / "1.jpg").read_bytes()
    assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "size": [40, 60]}
    assert [path.name for path in tmp_path.iterdir()] == ["1.jpg"] and b"from somewhere" not in content
    with Image.open(tmp_path / "1.jpg") as image:
        assert image.format == "JPEG" and image.mode == "RGB"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "1.jpg").write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        store(GOOD, tmp_path / "1.jpg", BOX, MOST)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("1.jpg", b"old")]


def huge_png(width, height):
    """A small file that says it is huge."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><script>1</script></svg>'


@pytest.mark.parametrize("data, cause", [
    (b"", "not an image"), (b"<html>no picture</html>", "not an image"), (EPS, "not an image"), (SVG, "not an image"), (GOOD[:20], "not an image"),
    (GOOD[:-200], "broken image"), (picture(form="PNG")[:-30], "broken image"), (picture(form="GIF")[:40], "broken image"),
    (picture((2000, 501)), "too many pixels"), (huge_png(100_000, 100_000), "too many pixels"), (huge_png(20_000, 5_000), "too many pixels"),
    (huge_png(100, 100), "broken image"), (b"GIF89a" + b"\xff" * 50, "not an image"),
])
def test_refused(data, cause, tmp_path):
    with pytest.raises(Refused) as caught:
        store(data, tmp_path / "1.jpg", BOX, MOST)
    assert caught.value.cause == cause and not list(tmp_path.iterdir())


def test_damaged_files_never_raise_anything_else():
    random = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = bytearray(picture((20, 20), form=form))
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
            try:
                assert decode(bytes(data[: random.integers(1, len(data) + 1)]), BOX, MOST).mode == "RGB"
            except Refused:
                pass


@pytest.mark.parametrize("item_id", ["1", "B000123", "ä", "電影", "a b", "a.b", "-x", "a..b", ".x", "spotify:track:1", "x" * 251])
def test_usable_ids(item_id):
    assert usable_id(item_id)


@pytest.mark.parametrize("item_id", [
    "", ".", "..", "...", "../../x", "a/b", "/etc/passwd", "a\\b", "..\\x", "a\0b", "a\nb", "a\tb", "\x7f", "con", "NUL", "Com1", "lpt9.x", "\u202ex",
    "x" * 252, "電" * 84, "\ud800",
])
def test_unusable_ids(item_id):
    assert not usable_id(item_id)
