"""Odd files become upright 8-bit RGB or an error that says why; the pixels are the spec's, exactly."""

import io
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from torchvision import models
from torchvision.transforms import InterpolationMode, v2

import tasks.core.media
from tasks.core import versions
from tasks.core.digest import digest_bytes, digest_value
from tasks.core.errors import RequestError
from tasks.core.libraries import find_published
from tasks.core.media import ImageSpec, MediaError, _seeded_box, decode, parse_view, pixels

MEAN, STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
ORIENTATION = 0x0112
SMALL = ImageSpec(8, 8, MEAN, STD)


def noise(height, width, *channels, seed=0):
    """(H, W, ...) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def blocks(height=32, width=48):
    """(H, W, 3) uint8: four even quarters of different colours, so that each turn of it differs."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = (250, 20, 20)
    picture[: height // 2, width // 2 :] = (20, 200, 20)
    picture[height // 2 :, : width // 2] = (20, 20, 180)
    picture[height // 2 :, width // 2 :] = (230, 230, 40)
    return picture


def encoded(picture, kind, **options):
    """The bytes of a file that shows a Pillow image or an array."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data):
    """(H, W, 3) uint8, having checked that the image is what it is said to be."""
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width, height, bits, colour, rows, *more):
    """A PNG file by hand, for what Pillow cannot write; `rows` holds samples without filter bytes."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    raw = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *(chunk(*each) for each in more), chunk(b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def over_white(colour, alpha):
    """What transparency shows before white, by the textbook: (..., 3) float."""
    share = np.asarray(alpha, dtype=float)[..., None] / 255
    return np.asarray(colour, dtype=float) * share + 255 * (1 - share)


# What can be read


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"optimize": True, "dpi": (300, 300)}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("TGA", {}),
        ("JPEG2000", {"irreversible": False}),
    ],
    ids=lambda value: str(value),
)
def test_a_lossless_rgb_file_is_read_to_the_byte(kind, options):
    picture = noise(13, 17, 3)
    assert np.array_equal(decoded(encoded(picture, kind, **options)), picture)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 2}),
        ("WEBP", {"quality": 95}),
        pytest.param(
            "AVIF", {"quality": 95}, marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF")
        ),
    ],
    ids=lambda value: str(value),
)
def test_a_lossy_file_shows_about_what_was_saved(kind, options):
    picture = blocks()
    shown = decoded(encoded(picture, kind, **options)).astype(int)
    assert shown.shape == picture.shape
    assert np.abs(shown - picture).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_8_bit_grey_is_shown_in_three_equal_channels(kind):
    grey = noise(9, 7)
    assert np.array_equal(decoded(encoded(grey, kind)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    grey = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(32, 32)
    shown = decoded(encoded(grey, kind))
    assert np.array_equal(shown, np.stack([grey >> 8] * 3, axis=-1))
    assert len(np.unique(shown)) == 256


def test_big_endian_16_bit_grey_is_scaled_too():
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = Image.frombytes("I;16B", (8, 8), grey.astype(">u2").tobytes())
    assert np.array_equal(decoded(encoded(image, "TIFF"))[..., 0], grey >> 8)


def test_16_bit_colour_keeps_its_upper_bytes():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(">u2")
    data = png(5, 4, 16, 2, [row.tobytes() for row in values])
    assert np.array_equal(decoded(data), (values >> 8).astype(np.uint8))


def test_16_bit_grey_with_transparency_shows_white():
    values = np.array([[[65535, 0], [0, 65535], [32768, 65535]]], dtype=">u2")
    data = png(3, 1, 16, 4, [values[0].tobytes()])
    assert decoded(data)[0, :, 0].tolist() == [255, 0, 128]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_1_bit_is_black_and_white(kind):
    bits = noise(11, 13) > 127
    shown = decoded(encoded(Image.fromarray(bits), kind))
    assert np.array_equal(shown, np.stack([bits * np.uint8(255)] * 3, axis=-1))


def palette_image(indices, colours):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(colours.tobytes())
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_is_looked_up(kind):
    colours, indices = noise(256, 3, seed=1), noise(12, 10)
    assert np.array_equal(decoded(encoded(palette_image(indices, colours), kind)), colours[indices])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_shows_white(kind):
    colours, indices = noise(256, 3, seed=1), noise(12, 10) % 8
    shown = decoded(encoded(palette_image(indices, colours), kind, transparency=3))
    expected = np.where((indices == 3)[..., None], 255, colours[indices])
    assert (indices == 3).any()
    assert np.array_equal(shown, expected)


def test_a_palette_with_a_transparency_for_each_colour_is_laid_over_white():
    colours, indices = noise(256, 3, seed=1), noise(12, 10) % 4
    alpha = np.array([0, 90, 200, 255], dtype=np.uint8)
    shown = decoded(encoded(palette_image(indices, colours), "PNG", transparency=alpha.tobytes()))
    assert np.abs(shown - over_white(colours[indices], alpha[indices])).max() <= 1


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_transparency_is_laid_over_white(kind, options):
    picture = noise(9, 8, 4)
    shown = decoded(encoded(picture, kind, **options))
    assert np.abs(shown - over_white(picture[..., :3], picture[..., 3])).max() <= 1


def test_what_is_fully_transparent_is_white_whatever_its_colour():
    picture = noise(9, 8, 4)
    picture[..., 3] = 0
    assert (decoded(encoded(picture, "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_transparency_is_laid_over_white(kind):
    grey, alpha = noise(9, 8), noise(9, 8, seed=1)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    expected = over_white(np.stack([grey] * 3, axis=-1), alpha)
    assert np.abs(decoded(encoded(image, kind)) - expected).max() <= 1


def test_a_transparent_colour_of_a_png_without_alpha_shows_white():
    picture = blocks()
    shown = decoded(encoded(picture, "PNG", transparency=(250, 20, 20)))
    expected = np.where((picture == (250, 20, 20)).all(axis=-1, keepdims=True), 255, picture)
    assert np.array_equal(shown, expected)


def test_a_cmyk_jpeg_shows_the_colours_of_its_inks():
    inks = {
        (0, 0, 0, 0): (255, 255, 255),
        (0, 0, 0, 255): (0, 0, 0),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 255, 0, 0): (255, 0, 255),
        (0, 0, 255, 0): (255, 255, 0),
    }
    for ink, colour in inks.items():
        data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        assert np.abs(decoded(data).astype(int) - colour).max() <= 3


STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.swapaxes(0, 1),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: up[::-1, ::-1].swapaxes(0, 1),
    8: lambda up: np.rot90(up, -1),
}
"""EXIF orientation -> how an upright picture lies in the file."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", sorted(STORED))
def test_a_picture_is_turned_upright(kind, orientation):
    upright = blocks()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = (
        {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    )
    shown = decoded(encoded(stored, kind, exif=exif, **options)).astype(int)
    assert shown.shape == upright.shape
    assert np.abs(shown - upright).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"garbage", b"Exif\0\0garbage"])
def test_a_picture_with_damaged_exif_is_still_read(exif):
    picture = blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decoded(encoded(picture, "JPEG", exif=exif)).shape == picture.shape


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_the_first_frame_of_an_animation_is_taken(kind, options):
    frames = [np.full((6, 5, 3), value, dtype=np.uint8) for value in (10, 120, 240)]
    images = [Image.fromarray(frame) for frame in frames]
    data = encoded(images[0], kind, save_all=True, append_images=images[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(decoded(data), frames[0])


def test_a_single_pixel_fills_the_crop():
    data = encoded(np.array([[[10, 200, 30]]], dtype=np.uint8), "PNG")
    assert decoded(data).tolist() == [[[10, 200, 30]]]
    assert (pixels(data, SMALL) == np.array([10, 200, 30])[:, None, None]).all()


def test_the_files_name_is_never_asked():
    picture = noise(4, 4, 3)
    assert np.array_equal(decoded(encoded(picture, "BMP")), decoded(encoded(picture, "PNG")))


def test_float_grey_is_scaled_or_refused_but_never_black():
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    with suppress(MediaError):
        assert len(np.unique(decoded(encoded(grey, "TIFF")))) > 2


# What cannot


def test_an_empty_file_is_called_so():
    with pytest.raises(MediaError, match=r"^empty file$"):
        decode(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"label,path\ncat,1.png\n",
        b"<!DOCTYPE html><html>404</html>",
        b"\0" * 1000,
        b"%PDF-1.7\n",
        b"PK\x03\x04 not a picture",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x89PNG",
    ],
    ids=lambda data: repr(data[:8]),
)
def test_what_is_no_picture_is_told_by_its_first_bytes(data):
    with pytest.raises(MediaError) as told:
        decode(data)
    assert str(told.value) == f"not a picture: starts with {data[:12]!r}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_cut_short_is_refused_or_whole_but_never_partly_shown(kind):
    data = encoded(noise(24, 24, 3), kind)
    whole = decoded(data)
    refused = 0
    for end in range(1, len(data), max(1, len(data) // 60)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shown = decoded(data[:end])
        except MediaError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(shown, whole)
    assert refused > 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_half_a_picture_is_refused_as_undecodable(kind):
    data = encoded(noise(40, 40, 3), kind)
    with pytest.raises(MediaError, match="cannot be decoded"):
        decode(data[: len(data) // 2])


def test_what_pillow_refuses_with_another_error_is_refused_alike():
    text = b"Comment\0\0" + zlib.compress(b"x" * 10_000_000)  # more text than Pillow lets pass: a ValueError
    with pytest.raises(MediaError, match="cannot be decoded: ") as told:
        decode(png(1, 1, 8, 0, [b"\0"], (b"zTXt", text)))
    assert isinstance(told.value.__cause__, ValueError)


FILES = [
    encoded(noise(12, 12, 3), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(FILES),
    harm=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_file_is_read_or_refused_but_raises_nothing_else(data, harm):
    bent = bytearray(data)
    for place, value in harm:
        bent[place % len(bent)] = value
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(tasks.core.media, "MOST_PIXELS", 100_000)
        warnings.simplefilter("ignore")
        try:
            assert decode(bytes(bent)).mode == "RGB"
        except MediaError as error:
            assert str(error)


@pytest.mark.parametrize(("width", "height"), [(101, 100), (150, 100), (400, 100), (10_001, 1)])
def test_a_picture_beyond_the_limit_is_refused(monkeypatch, width, height):
    data = encoded(Image.new("L", (width, height)), "PNG")
    monkeypatch.setattr(tasks.core.media, "MOST_PIXELS", 10_000)
    with pytest.raises(MediaError, match=r"^more than 10,000 pixels$"):
        decode(data)


def test_a_picture_at_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(tasks.core.media, "MOST_PIXELS", 10_000)
    assert decode(encoded(Image.new("L", (100, 100)), "PNG")).size == (100, 100)


def test_decoding_leaves_the_warning_filters_alone():
    before = list(warnings.filters)
    decode(encoded(blocks(), "PNG"))
    assert warnings.filters == before


def test_the_limit_holds_and_the_filters_stay_while_several_threads_decode(monkeypatch):
    small, bomb = encoded(Image.new("L", (5, 5)), "PNG"), encoded(Image.new("L", (15, 10)), "PNG")
    opened, go = {5: threading.Event(), 15: threading.Event()}, {5: threading.Event(), 15: threading.Event()}
    real_open, told, before = Image.open, {}, list(warnings.filters)

    def slow_open(file, **named):
        width = struct.unpack(">I", file.getvalue()[16:20])[0]
        opened[width].set()
        go[width].wait(10)
        return real_open(file, **named)

    def work(width, data):
        try:
            told[width] = decode(data).size
        except MediaError as error:
            told[width] = str(error)

    monkeypatch.setattr(tasks.core.media, "MOST_PIXELS", 100)
    monkeypatch.setattr(Image, "open", slow_open)
    threads = [threading.Thread(target=work, args=given) for given in ((5, small), (15, bomb))]
    for thread, width in zip(threads, (5, 15), strict=True):  # both inside at once, out in the same order
        thread.start()
        opened[width].wait(10)
    for thread, width in zip(threads, (5, 15), strict=True):
        go[width].set()
        thread.join(10)
    after = list(warnings.filters)
    warnings.filters[:] = before
    assert told == {5: (5, 5), 15: "more than 100 pixels"}
    assert after == before


# Pixels

sizes = st.integers(1, 90)


@st.composite
def cases(draw):
    """A picture's width and height, and a spec that find_backbone would let pass."""
    resize = draw(st.integers(1, 48))
    return draw(sizes), draw(sizes), ImageSpec(resize, draw(st.integers(1, resize)), MEAN, STD)


def nearest_whole(exact):
    """The whole numbers nearest to a fraction: one, or both at a tie."""
    below = exact.numerator // exact.denominator
    return {n for n in (below, below + 1) if abs(exact - n) <= Fraction(1, 2)}


def by_pillow(picture, spec, width, height):
    """The spec in Pillow's own words, for a given size after resizing: (3, crop, crop)."""
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - spec.crop) // 2, (height - spec.crop) // 2
    return np.asarray(image)[top : top + spec.crop, left : left + spec.crop].transpose(2, 0, 1)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_pixels_are_pillows_bicubic_resize_of_the_shorter_side_and_the_centre(case):
    width, height, spec = case
    picture = noise(height, width, 3)
    got = pixels(encoded(picture, "PNG"), spec)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == ((3, spec.crop, spec.crop), np.uint8, True)
    short = min(width, height)
    candidates = [
        by_pillow(picture, spec, w, h)
        for w in nearest_whole(Fraction(width * spec.resize, short))
        for h in nearest_whole(Fraction(height * spec.resize, short))
    ]
    assert any(np.array_equal(got, expected) for expected in candidates)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_pixels_are_torchvisions_to_within_one_pixel_of_length_and_of_offset(case):
    """torchvision cuts the longer side's length down where Pillow's spec rounds it, and rounds the
    crop's offset half to even where the spec cuts it down. Where both agree, so does every pixel."""
    width, height, spec = case
    image = Image.fromarray(noise(height, width, 3))
    got = pixels(encoded(image, "PNG"), spec)
    theirs = v2.Resize(spec.resize, interpolation=InterpolationMode.BICUBIC)(image)
    scale = spec.resize / min(width, height)
    length = (round(width * scale), round(height * scale))
    assert all(mine - other in (0, 1) for mine, other in zip(length, theirs.size, strict=True))
    same_length = v2.Resize(length[::-1], interpolation=InterpolationMode.BICUBIC)(image)
    moved = tuple(round((n - spec.crop) / 2) - (n - spec.crop) // 2 for n in length)
    assert set(moved) <= {0, 1}
    if moved == (0, 0):
        assert np.array_equal(got, np.asarray(v2.CenterCrop(spec.crop)(same_length)).transpose(2, 0, 1))
    if moved == (0, 0) and length == theirs.size:
        assert np.array_equal(got, np.asarray(v2.CenterCrop(spec.crop)(theirs)).transpose(2, 0, 1))


@settings(deadline=None)
@given(side=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_picture_of_the_right_size_is_handed_on_untouched(side, seed):
    picture = noise(side, side, 3, seed=seed)
    spec = ImageSpec(side, side, MEAN, STD)
    assert np.array_equal(pixels(encoded(picture, "PNG"), spec), picture.transpose(2, 0, 1))


def test_a_very_wide_picture_gives_its_middle():
    picture = noise(3, 2000, 3)
    got = pixels(encoded(picture, "PNG"), SMALL)
    assert np.array_equal(got, by_pillow(picture, SMALL, round(2000 * 8 / 3), 8))


def test_a_very_tall_picture_gives_its_middle():
    picture = noise(2000, 3, 3)
    got = pixels(encoded(picture, "PNG"), SMALL)
    assert np.array_equal(got, by_pillow(picture, SMALL, 8, round(2000 * 8 / 3)))


def test_no_picture_grows_beyond_the_limit_on_its_way_to_the_crop(monkeypatch):
    grown = []

    def resize(self, size, *rest, **options):
        grown.append(size[0] * size[1])
        return Image.new(self.mode, (300, 300))

    monkeypatch.setattr(Image.Image, "resize", resize)
    with suppress(MediaError):  # refusing is as good
        pixels(encoded(Image.new("RGB", (60_000, 1)), "PNG"), ImageSpec(256, 224, MEAN, STD))
    assert max(grown, default=0) <= tasks.core.media.MOST_PIXELS


def test_the_mean_and_std_are_left_to_the_caller():
    data = encoded(noise(20, 30, 3), "PNG")
    assert np.array_equal(pixels(data, SMALL), pixels(data, ImageSpec(8, 8, (0.0,) * 3, (1.0,) * 3)))


@pytest.mark.parametrize("data", [b"", b"text", encoded(noise(20, 20, 3), "PNG")[:300]])
def test_pixels_of_an_unreadable_file_are_refused_as_decoding_does(data):
    with pytest.raises(MediaError):
        pixels(data, SMALL)


# The libraries' own preprocessing

ODD_SIZES = [(375, 500), (500, 375), (233, 301), (301, 233), (100, 777), (257, 256), (64, 64), (31, 90)]


def levels(normalised, spec):
    """Undo the normalisation of (3, H, W) floats: uint8."""
    std, mean = (np.array(each).reshape(3, 1, 1) for each in (spec.std, spec.mean))
    undone = np.asarray(normalised, dtype=float) * std + mean
    assert np.abs(undone - undone.round()).max() < 0.01
    return undone.round().astype(np.uint8)


@pytest.mark.parametrize(
    "name", ["resnet50", "alexnet", "efficientnet_b0", "inception_v3", "swin_t", "vit_l_16"]
)
def test_pixels_are_those_of_torchvisions_own_transforms(name):
    transform = models.get_model_weights(name).DEFAULT.transforms()
    spec = find_published(name, bundled=[]).preprocessing
    for number, (height, width) in enumerate(ODD_SIZES):
        picture = noise(height, width, 3, seed=number)
        got = pixels(encoded(picture, "PPM"), spec)
        assert np.array_equal(got, levels(transform(Image.fromarray(picture)), spec)), (height, width)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "resnet50.tv_in1k",
        "vit_tiny_patch16_224",
        "dm_nfnet_f0.dm_in1k",
        "nfnet_f0",
    ],
)
def test_pixels_are_those_of_timms_own_transform(name):
    config = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config)
    spec = find_published(f"timm:{name}", bundled=[]).preprocessing
    assert (spec.fit == "squash") == (config["crop_mode"] == "squash")
    for number, (height, width) in enumerate(ODD_SIZES):
        picture = noise(height, width, 3, seed=number)
        got = pixels(encoded(picture, "PPM"), spec)
        assert np.array_equal(got, levels(transform(Image.fromarray(picture)), spec)), (height, width)


@settings(max_examples=150, deadline=None)
@given(case=cases(), interpolation=st.sampled_from(["bicubic", "bilinear"]))
def test_the_fit_down_is_torchvisions_at_every_size(case, interpolation):
    width, height, spec = case
    spec = replace(spec, fit="down", interpolation=interpolation)
    picture = noise(height, width, 3)
    resize = v2.Resize(spec.resize, interpolation=InterpolationMode(interpolation))
    theirs = v2.CenterCrop(spec.crop)(resize(Image.fromarray(picture)))
    assert np.array_equal(pixels(encoded(picture, "PNG"), spec), np.asarray(theirs).transpose(2, 0, 1))


# Views


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("centre", "centre"),
        ("hflip", "hflip"),
        ("vflip", "vflip"),
        ("crop:0", "crop:0"),
        ("crop:012", "crop:12"),
    ],
)
def test_a_view_is_written_in_one_way(text, view):
    assert parse_view(text) == view == parse_view(view)


@pytest.mark.parametrize(
    "text", ["", "center", "crop", "crop:", "crop:-1", "crop:1.5", "crop:K", "crop:²", "hflip:1", " centre"]
)
def test_an_unknown_view_is_refused(text):
    with pytest.raises(RequestError, match="write one of centre, hflip, vflip, rot180, crop:K"):
        parse_view(text)
    with pytest.raises(RequestError, match="write one of"):
        pixels(encoded(noise(20, 20, 3), "PNG"), SMALL, view=text)


@settings(max_examples=30, deadline=None)
@given(case=cases())
def test_flips_are_the_centre_mirrored(case):
    width, height, spec = case
    data = encoded(noise(height, width, 3), "PNG")
    centre = pixels(data, spec)
    for view, mirrored in (
        ("hflip", centre[:, :, ::-1]),
        ("vflip", centre[:, ::-1]),
        ("rot180", np.rot90(centre, 2, (1, 2))),
    ):
        got = pixels(data, spec, view=view)
        assert np.array_equal(got, mirrored)
        assert got.flags.c_contiguous


def test_a_seeded_crop_depends_on_the_digest_and_its_number_alone():
    data, other = (encoded(noise(60, 90, 3, seed=seed), "PNG") for seed in (0, 1))
    spec = ImageSpec(24, 20, MEAN, STD)
    first = pixels(data, spec, view="crop:0", digest="a")
    assert np.array_equal(first, pixels(data, spec, view="crop:0", digest="a"))
    assert not np.array_equal(first, pixels(data, spec, view="crop:1", digest="a"))
    assert not np.array_equal(first, pixels(data, spec, view="crop:0", digest="b"))
    assert np.array_equal(
        pixels(other, spec, view="crop:3"), pixels(other, spec, view="crop:3", digest=digest_bytes(other))
    )


def where(height, width, view, digest):
    """Left, top, right, bottom of a crop, read from a picture whose colours tell their place."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    spec = replace(SMALL, resize=256, crop=256, interpolation="bilinear")
    shown = pixels(encoded(picture, "PNG"), spec, view=view, digest=digest)
    return shown[0].min(), shown[1].min(), shown[0].max() + 1, shown[1].max() + 1


def test_seeded_crops_are_of_the_area_and_the_shape_that_are_promised_and_lie_everywhere():
    height, width = 150, 180
    boxes = np.array([where(height, width, f"crop:{k}", "some digest") for k in range(300)], dtype=float)
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = w * h / (height * width), w / h
    assert share.min() > 0.24
    assert share.max() <= 1
    assert share.max() - share.min() > 0.6
    assert np.all((ratio > 0.73) & (ratio < 1.37))
    assert abs(np.log(ratio).mean()) < 0.05
    narrow, low = boxes[w < width], boxes[h < height]
    assert narrow[:, 0].min() == low[:, 1].min() == 0
    assert narrow[:, 2].max() == width
    assert low[:, 3].max() == height


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2000), (2000, 3), (2, 3)])
def test_a_seeded_crop_of_a_strip_or_a_speck_is_had_too(height, width):
    for number in range(5):
        got = pixels(encoded(noise(height, width, 3), "PNG"), SMALL, view=f"crop:{number}")
        assert got.shape == (3, 8, 8)


def test_a_seeded_crop_is_the_same_on_every_machine():
    """Golden: the boxes, which no library's random numbers, log or exp decide."""
    boxes = [_seeded_box(500, 375, f"{'0' * 40} {number}") for number in range(3)]
    assert boxes == BOXES


BOXES = [(20, 14, 343, 338), (0, 19, 293, 250), (27, 7, 478, 362)]


specs = st.builds(
    ImageSpec,
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(*[st.sampled_from([0.0, 0.5, 127.0])] * 3),
    st.tuples(*[st.sampled_from([1.0, 0.5, 128.0])] * 3),
    st.sampled_from(["bicubic", "bilinear"]),
    st.sampled_from(["nearest", "down", "squash"]),
)


@settings(deadline=None)
@given(one=specs, other=specs)
def test_specs_share_an_identity_only_if_they_are_equal(one, other):
    assert (digest_value(one.identity()) == digest_value(other.identity())) == (one == other)


def test_a_spec_as_it_always_was_keeps_its_identity():
    assert SMALL.identity() == [versions.MEDIA, 8, 8, list(MEAN), list(STD)]


@pytest.mark.parametrize("odd", [{"interpolation": "lanczos"}, {"fit": "border"}, {"fit": "center"}])
def test_a_spec_of_another_kind_is_refused(odd):
    with pytest.raises(ValueError, match=f"{next(iter(odd.values()))!r} is none of"):
        ImageSpec(8, 8, MEAN, STD, **odd)


def test_the_version_of_this_module_enters_the_identity(monkeypatch):
    before = digest_value(SMALL.identity())
    monkeypatch.setattr(versions, "MEDIA", versions.MEDIA + 1)
    assert digest_value(SMALL.identity()) != before


GOLDEN = {1: "b16baef9a848dbc988d63d48051af1ca39dd6b66"}
"""versions.MEDIA -> digest of what the picture below gives. Other pixels need a new version."""


def test_the_pixels_change_only_with_the_version():
    y, x = np.mgrid[0:50, 0:70]
    picture = np.stack([(x * 3) % 256, (y * 5) % 256, (x * y) % 256], axis=-1).astype(np.uint8)
    grey = (np.arange(50 * 70).reshape(50, 70) * 17 % 65536).astype(np.uint16)
    clear = np.dstack([picture, (x + y).astype(np.uint8)])
    spec = ImageSpec(24, 20, MEAN, STD)
    made = b"".join(pixels(encoded(each, "PNG"), spec).tobytes() for each in (picture, grey, clear))
    assert digest_bytes(made) == GOLDEN[versions.MEDIA]
