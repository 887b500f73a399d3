"""Image files -> pixels, by a spec that is hashed.

Pillow decodes and resizes; what it is asked to do is pinned here and enters every feature's
identity through `ImageSpec` and `versions.MEDIA`.
"""

import hashlib
import io
import math
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.core import versions
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF")
"""What is decoded, whatever a file's name says: Pillow would run other programs for some others."""

BACKDROP = (255, 255, 255)
"""Transparent pixels show this colour."""

MOST_PIXELS = 178_956_970
"""A picture with more is refused, and none grows beyond it on its way to the crop."""

Image.MAX_IMAGE_PIXELS = None  # the limit is ours alone: Pillow would warn before it refuses


class MediaError(ValueError):
    """A file's bytes are no picture that can be read; the text is the reason."""


INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
FITS = ("nearest", "down", "squash")
VIEWS = ("centre", "hflip", "vflip", "rot180", "crop:K")
MIRRORED = {"hflip": (2,), "vflip": (1,), "rot180": (1, 2)}
CROP = "crop"
"""Where layers are trained on pictures: a view that is another crop in every epoch."""


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes a network's input.

    The shorter side is resized to `resize` pixels (Pillow, antialiased), the centre `crop` x `crop` is
    cut out, and (value - mean) / std is taken per channel, values from 0 to 255.

    Attributes:
        resize: pixels of the shorter side; of both sides if `fit` is "squash".
        crop: pixels of the square.
        mean: per channel.
        std: per channel.
        interpolation: "bicubic" or "bilinear".
        fit: "nearest" rounds the longer side's length and cuts the crop's offset down; "down" cuts the
            length down and rounds the offset half to even, as torchvision and timm do; "squash" makes
            both sides `resize` long, with the offset of "down".

    Raises:
        ValueError: if interpolation or fit is none of these.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    fit: str = "nearest"

    def __post_init__(self) -> None:
        for value, known in ((self.interpolation, INTERPOLATIONS), (self.fit, FITS)):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")

    def identity(self) -> list[object]:
        """Say all that decides the pixels, as plain values; what is as it always was is not told."""
        own = [versions.MEDIA, self.resize, self.crop, list(self.mean), list(self.std)]
        later = [self.interpolation, self.fit]
        return own if later == ["bicubic", "nearest"] else own + later


def parse_view(text: str) -> str:
    """Read the name of a view: `centre`, `hflip`, `vflip`, `rot180` or `crop:K`.

    Returns:
        The one way to write it, for keys.

    Raises:
        RequestError: if there is no such view.
    """
    kind, _, number = text.partition(":")
    if kind == "crop" and number.isascii() and number.isdigit():
        return f"crop:{int(number)}"
    if text not in VIEWS[:4]:
        raise RequestError(f"view {text!r}: write one of {', '.join(VIEWS)}, such as crop:0")
    return text


def decode(data: bytes) -> Image.Image:
    """Decode a picture file to upright 8-bit RGB.

    EXIF orientation is applied, the first frame of an animation is taken, 16-bit grey is scaled
    to 8 bits, and transparency shows white.

    Args:
        data: the whole file.

    Returns:
        An image in mode "RGB".

    Raises:
        MediaError: if the bytes are empty, no picture, cut short, or unreasonably large.
    """
    if not data:
        raise MediaError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header alone
            _check_size(image)
            image.load()
            _turn_upright(image)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise MediaError(f"not a picture: starts with {data[:12]!r}") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise MediaError(f"cannot be decoded: {error or type(error).__name__}") from error


def pixels(data: bytes, spec: ImageSpec, view: str = "centre", digest: str = "") -> np.ndarray:
    """Decode, resize and crop one picture.

    Args:
        data: the whole file.
        spec: size and crop; mean and std are left to the caller, so that bytes travel.
        view: as `parse_view` returns it. "hflip" and "vflip" mirror the centre left to right and top to
            bottom, "rot180" does both; "crop:K" is a crop of 25 to 100 % of the picture's area, its sides
            3:4 to 4:3, placed anywhere, resized to `crop` x `crop`; K and the digest alone decide which.
        digest: the sample's; that of `data` if not given.

    Returns:
        (3, crop, crop) uint8.

    Raises:
        MediaError: as `decode`.
        RequestError: as `parse_view`.
    """
    kind, _, number = parse_view(view).partition(":")
    image = decode(data)
    if kind == "crop":
        image = _seeded_crop(image, spec, f"{digest or digest_bytes(data)} {number}")
    else:
        image = _centre(_without_far_ends(image, spec), spec)
    square = np.asarray(image).transpose(2, 0, 1)  # (3, crop, crop)
    if kind in MIRRORED:
        square = np.flip(square, MIRRORED[kind])
    return np.ascontiguousarray(square)


def _centre(image: Image.Image, spec: ImageSpec) -> Image.Image:
    # Resizing the crop's part alone (Pillow's `box`) would spare a fifth, but not every bit stays the
    # same: Pillow chooses by the lengths which side it resizes first, and rounds in between.
    size = _resized(image.size, spec)
    if size != image.size:
        image = image.resize(size, INTERPOLATIONS[spec.interpolation])
    spare = [side - spec.crop for side in size]
    left, top = (n // 2 if spec.fit == "nearest" else round(n / 2) for n in spare)
    return image.crop((left, top, left + spec.crop, top + spec.crop))


def _resized(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Return width and height before the crop."""
    if spec.fit == "squash":
        return spec.resize, spec.resize
    short = min(size)
    if spec.fit == "down":
        width, height = (spec.resize * side // short for side in size)
    else:
        scale = spec.resize / short
        width, height = (max(spec.crop, round(side * scale)) for side in size)
    return width, height


SMALLEST_CROP = 0.25
"""Share of the picture's area that a seeded crop shows at least."""
WIDEST_CROP = 4 / 3
"""A seeded crop's longer side over its shorter one, at most."""
TRIES = 10


def _seeded_crop(image: Image.Image, spec: ImageSpec, seed: str) -> Image.Image:
    """Cut out and resize a part of the picture that the seed chooses (Szegedy et al. 2015, section 6)."""
    box = _seeded_box(image.width, image.height, seed)
    return image.crop(box).resize((spec.crop, spec.crop), INTERPOLATIONS[spec.interpolation])


def _seeded_box(width: int, height: int, seed: str) -> tuple[int, int, int, int]:
    """Choose left, top, right, bottom; the same on every machine."""
    for attempt in range(TRIES):
        area, shape, x, y = _uniform(f"{seed} {attempt}")
        area = (SMALLEST_CROP + (1 - SMALLEST_CROP) * area) * width * height
        log_ratio = Decimal(2 * shape - 1) * Decimal(WIDEST_CROP).ln()
        ratio = float(log_ratio.exp())  # by Decimal, since machines' own log and exp differ
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * WIDEST_CROP)), min(height, round(width * WIDEST_CROP))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _uniform(seed: str) -> list[float]:
    """Return four numbers, 0 <= u < 1."""
    data = hashlib.blake2b(seed.encode(), digest_size=32).digest()
    return [int.from_bytes(data[at : at + 8], "big") / 2**64 for at in range(0, 32, 8)]


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation; a block that cannot be read tells none."""
    with suppress(Exception):  # each format's plugin fails in its own way
        ImageOps.exif_transpose(image, in_place=True)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise MediaError(f"more than {MOST_PIXELS:,} pixels")


def _without_far_ends(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Cut a strip so long that it would grow beyond `MOST_PIXELS` to its middle, which holds the crop."""
    short, long = sorted(image.size)
    if spec.fit == "squash" or long / short * spec.resize**2 <= MOST_PIXELS:
        return image
    kept = [min(side, 8 * short) for side in image.size]
    left, top = (image.width - kept[0]) // 2, (image.height - kept[1]) // 2
    return image.crop((left, top, left + kept[0], top + kept[1]))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # deep grey; convert("RGB") would clip it at 255
        grey = np.asarray(image)
        if image.mode == "F" or grey.min() < 0 or grey.max() > 65_535:
            raise MediaError("32-bit grey, whose range is not told; save it with 8 or 16 bits")
        return Image.fromarray((grey.astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, BACKDROP)
        return Image.alpha_composite(backdrop, picture).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
