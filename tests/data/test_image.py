"""Image decoding: whatever a user's folder holds becomes RGB of one size or None."""

import warnings

import numpy as np
import pytest
from PIL import Image

from recbole_molar.data.image import ImageStore, decode_image

GREY = np.full((20, 10), 128, dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1"])
def test_modes(tmp_path, mode):
    path = saved(tmp_path / ("x.jpg" if mode == "CMYK" else "x.png"), Image.fromarray(GREY).convert("RGB").convert(mode))
    pixels = decode_image(path, (28, 56))
    assert pixels.shape == (56, 28, 3) and pixels.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    path = saved(tmp_path / "x.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    assert (decode_image(path, (28, 28)) == 128).all()


def test_transparency_turns_white(tmp_path):
    path = saved(tmp_path / "x.png", Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert (decode_image(path, (28, 28)) == 255).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "x.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(path, (28, 28))[0, 0].tolist() == [255, 0, 0]


def test_broken_files_are_none(tmp_path):
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    saved(tmp_path / "gif.jpg", Image.new("RGB", (8, 8)), format="GIF")
    for name in ("cut", "empty", "text", "gif", "missing"):
        assert decode_image(tmp_path / f"{name}.jpg", (28, 28)) is None, name


def test_limits(tmp_path):
    path = saved(tmp_path / "x.png", Image.new("RGB", (100, 100)))
    assert decode_image(path, (28, 28), max_pixels=9_999) is None
    assert decode_image(path, (28, 28), max_file_bytes=10) is None
    assert decode_image(path, (28, 28), max_pixels=10_000) is not None


def test_store_counts_broken_and_respects_its_memory(tmp_path):
    good = saved(tmp_path / "x.png", Image.new("RGB", (8, 8)))
    (tmp_path / "bad.png").write_bytes(b"no")
    store = ImageStore([None, good, tmp_path / "bad.png", good], (28, 28), max_bytes=3 * 28 * 28)
    assert [store.get(index) is None for index in range(4)] == [True, False, True, False]
    assert store.broken == {2} and len(store._kept) == 1


def test_what_is_read_ahead_is_what_is_read_one_by_one(tmp_path):
    """In and beyond the limit; what is beyond is let go by the next call."""
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (40, 30, 3), dtype=np.uint8)) for _ in range(24)]
    paths = [None, *(saved(tmp_path / f"{n}.{kind}", picture) for n, (kind, picture) in enumerate(zip(["png", "jpg", "webp"] * 8, pictures)))]
    (tmp_path / "bad.png").write_bytes(b"no")
    paths.append(tmp_path / "bad.png")
    alone = [path and decode_image(path, (28, 28)) for path in paths]
    store = ImageStore(paths, (28, 28), max_bytes=12 * 3 * 28 * 28)
    store.read_ahead([25, 0, *range(20), 3])
    assert store.broken == {25} and set(store._kept) == set(range(1, 13)) and set(store._ahead) == {13, 14}  # 25 was one of 15
    for path in paths[1:15]:
        path.rename(path.with_suffix(".gone"))
    for index in range(1, 26):
        assert np.array_equal(store.get(index), alone[index]) if index < 25 else store.get(index) is None
    store.read_ahead([1, 2, 20])
    assert set(store._ahead) == {20} and store.get(14) is None


def test_a_huge_picture_is_refused_by_all_threads(tmp_path, monkeypatch):
    """Also while several are decoded, and without a change to what Python warns of."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # from here on PIL warns, from twice as many it refuses
    paths = [saved(tmp_path / f"{n}.png", Image.new("RGB", (15, 10))) for n in range(20)]
    before = list(warnings.filters)
    store = ImageStore(paths, (28, 28))
    store.read_ahead(range(20))
    assert store.broken == set(range(20)) and warnings.filters == before
