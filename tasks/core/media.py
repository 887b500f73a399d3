"""Image files -> pixels, by a spec that is hashed.

Pillow decodes and resizes; what it is asked to do is pinned here and enters every feature's
identity through `ImageSpec` and `versions.MEDIA`.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.core import versions

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)
BACKDROP = (255, 255, 255)
"""Transparent pixels show this colour."""

MOST_PIXELS = 178_956_970
"""A picture with more is refused, and none grows beyond it on its way to the crop."""

Image.MAX_IMAGE_PIXELS = None  # the limit is ours alone: Pillow would warn before it refuses


class MediaError(ValueError):
    """A file's bytes are no picture that can be read; the text is the reason."""


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes a network's input.

    The shorter side is resized to `resize` pixels (Pillow, bicubic, antialiased), the centre
    `crop` x `crop` is cut out, and (value - mean) / std is taken per channel, values from 0 to 255.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def identity(self) -> list[object]:
        """Say all that decides the pixels, as plain values."""
        return [versions.MEDIA, self.resize, self.crop, list(self.mean), list(self.std)]


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
        with Image.open(io.BytesIO(data)) as image:  # reads the header alone
            _check_size(image)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise MediaError(f"not a picture: starts with {data[:12]!r}") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise MediaError(f"cannot be decoded: {error or type(error).__name__}") from error


def pixels(data: bytes, spec: ImageSpec) -> np.ndarray:
    """Decode, resize and crop one picture.

    Args:
        data: the whole file.
        spec: size and crop; mean and std are left to the caller, so that bytes travel.

    Returns:
        (3, crop, crop) uint8.

    Raises:
        MediaError: as `decode`.
    """
    image = _without_far_ends(decode(data), spec)
    width, height = image.size
    scale = spec.resize / min(width, height)
    size = (max(spec.crop, round(width * scale)), max(spec.crop, round(height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - spec.crop) // 2, (size[1] - spec.crop) // 2
    image = image.crop((left, top, left + spec.crop, top + spec.crop))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))  # (3, crop, crop)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise MediaError(f"more than {MOST_PIXELS:,} pixels")


def _without_far_ends(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Cut a strip so long that it would grow beyond `MOST_PIXELS` to its middle, which holds the crop."""
    short, long = sorted(image.size)
    if long / short * spec.resize**2 <= MOST_PIXELS:
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
    return image.convert("RGB")
