"""Whatever lies in a data folder is decoded right or set aside with its reason; nothing crashes, nothing hangs."""

import csv
import io
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, ImageOps

from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.manifest import locate, read_manifest, scan_folder
from tasks.core.media import ImageSpec, pixels
from tasks.core.metrics import METRICS
from tasks.core.report import Confusion, Wrong, render
from tasks.core.samples import Columns, assemble, check_enough, examine
from tasks.core.splits import SplitSpec, split_table
from tasks.core.tables import read_table, write_table

SPEC = ImageSpec(24, 16, (127.0,) * 3, (128.0,) * 3)
ORIENTATION = 0x0112


def scene(height=30, width=44, seed=0):
    """(H, W, 3) uint8: smooth colours that differ at every corner, and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([4 * x, 6 * y, 200 - 3 * x + y], axis=2) + 20 * np.sin(x / 5)[..., None]
    noise = np.random.default_rng(seed).normal(0, 2, (height, width, 3))
    return (waves + noise).clip(0, 255).astype(np.uint8)


def grey(seed=0):
    """(H, W) uint8."""
    return scene(seed=seed)[..., 0]


def saved(picture, kind, **options):
    """The bytes of a file that shows a Pillow image or an array."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_by_hand(width, height, bits, colour, rows):
    raw = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def deep(picture):
    """16 bits a value, whose upper 8 are the picture's."""
    low = np.random.default_rng(1).integers(0, 256, picture.shape)
    return (picture.astype(np.uint16) << 8) + low.astype(np.uint16)


def interlaced(picture):
    """A PNG file in Adam7 order, which Pillow reads and does not write."""
    height, width = picture.shape[:2]
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    parts = [picture[top::down, left::right] for left, top, right, down in passes]
    raw = b"".join(b"\0" + row.tobytes() for part in parts for row in part if part.size)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def turned(picture, orientation):
    """What a camera stores, so that its orientation shows the picture upright."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo.get(orientation, undo[1])(picture))


def with_orientation(picture, orientation, kind, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(turned(picture, orientation), kind, exif=exif, **options)


def on_white(colours, alpha):
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


ALPHA = np.tile(np.linspace(0, 255, 44).astype(np.uint8), (30, 1))
PALETTE = Image.fromarray(scene()).quantize(32)
SHOWN = np.asarray(PALETTE.convert("RGB"))
SEE_THROUGH = np.where((np.asarray(PALETTE) == 3)[..., None], np.uint8(255), SHOWN)
CMYK = Image.fromarray(scene()).convert("CMYK")
FRAMES = [Image.fromarray(scene(seed=seed)) for seed in range(3)]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOT_RGB = np.stack([grey()] * 3, axis=2)
ONE_BIT = np.where(grey() > 99, 255, 0).astype(np.uint8)

EXACT = {
    "png": (saved(scene(), "PNG"), scene()),
    "png interlaced": (interlaced(scene()), scene()),
    "png 1 bit": (saved(Image.fromarray(ONE_BIT).convert("1"), "PNG"), np.stack([ONE_BIT] * 3, 2)),
    "png 16 bit grey": (saved(deep(grey()), "PNG"), NOT_RGB),
    "png 16 bit colour": (
        png_by_hand(44, 30, 16, 2, [row.astype(">u2").tobytes() for row in deep(scene())]),
        scene(),
    ),
    "png grey": (saved(grey(), "PNG"), NOT_RGB),
    "png grey and alpha": (
        saved(Image.merge("LA", [Image.fromarray(grey()), Image.fromarray(ALPHA)]), "PNG"),
        on_white(NOT_RGB, ALPHA),
    ),
    "png alpha": (saved(np.dstack([scene(), ALPHA]), "PNG"), on_white(scene(), ALPHA)),
    "png palette": (saved(PALETTE, "PNG"), SHOWN),
    "png palette, one colour clear": (saved(PALETTE, "PNG", transparency=3), SEE_THROUGH),
    "png palette, alpha for each colour": (
        saved(PALETTE, "PNG", transparency=bytes([255, 255, 255, 0] + [255] * 28)),
        SEE_THROUGH,
    ),
    "png animated": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), scene()),
    "png with a colour profile": (saved(scene(), "PNG", icc_profile=PROFILE), scene()),
    "png, then garbage": (saved(scene(), "PNG") + b"\0garbage" * 99, scene()),
    "png of one pixel": (saved(scene(1, 1), "PNG"), scene(1, 1)),
    "png 20000 x 3": (saved(scene(3, 20_000), "PNG"), scene(3, 20_000)),
    "png 3 x 20000": (saved(scene(20_000, 3), "PNG"), scene(20_000, 3)),
    "gif": (saved(PALETTE, "GIF"), SHOWN),
    "gif, one colour clear": (saved(PALETTE, "GIF", transparency=3), SEE_THROUGH),
    "gif animated": (saved(PALETTE, "GIF", save_all=True, append_images=FRAMES[1:], duration=50), SHOWN),
    "webp lossless": (saved(scene(), "WEBP", lossless=True), scene()),
    "webp animated": (
        saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True),
        scene(),
    ),
    "tiff": (saved(scene(), "TIFF"), scene()),
    "tiff of pages": (saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), scene()),
    "tiff 16 bit": (saved(deep(grey()), "TIFF"), NOT_RGB),
    "tiff lzw": (saved(scene(), "TIFF", compression="tiff_lzw"), scene()),
    "tiff in tiles": (
        saved(scene(32, 48), "TIFF", compression="raw", tiffinfo={322: 16, 323: 16}),
        scene(32, 48),
    ),
    "tiff cmyk": (saved(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB"))),
    "tiff alpha": (saved(np.dstack([scene(), ALPHA]), "TIFF"), on_white(scene(), ALPHA)),
    "bmp": (saved(scene(), "BMP"), scene()),
    "bmp palette": (saved(PALETTE, "BMP"), SHOWN),
    "ppm": (saved(scene(), "PPM"), scene()),
    "ppm as text": (b"P3\n44 30\n255\n" + b" ".join(b"%d" % v for v in scene().flat), scene()),
    "pgm 16 bit": (b"P5\n44 30\n65535\n" + deep(grey()).astype(">u2").tobytes(), NOT_RGB),
    "tga": (saved(scene(), "TGA"), scene()),
    "jpeg 2000": (saved(scene(), "JPEG2000", irreversible=False), scene()),
    **{f"png orientation {turn}": (with_orientation(scene(), turn, "PNG"), scene()) for turn in range(1, 9)},
    "webp orientation 6": (with_orientation(scene(), 6, "WEBP", lossless=True), scene()),
    "png of an orientation that there is not": (with_orientation(scene(), 99, "PNG"), scene()),
}
"""What must be shown to the byte; one step of rounding where it is blended with white."""


def restart_markers():
    """A JPEG whose restart markers stand in the wrong order."""
    data = saved(scene(), "JPEG", restart_marker_blocks=1, quality=95)
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(marks) > 4
    mixed = bytearray(data)
    mixed[marks[2] + 1], mixed[marks[3] + 1] = mixed[marks[3] + 1], mixed[marks[2] + 1]
    return bytes(mixed)


LOSSY = {
    "jpeg": saved(scene(), "JPEG"),
    "jpeg progressive": saved(scene(), "JPEG", progressive=True),
    "jpeg grey": saved(grey(), "JPEG"),
    "jpeg 4:4:4": saved(scene(), "JPEG", subsampling=0),
    "jpeg cmyk, inverted as Adobe does": saved(CMYK, "JPEG", quality=95),
    "jpeg with a colour profile": saved(scene(), "JPEG", icc_profile=PROFILE),
    "jpeg, then garbage": saved(scene(), "JPEG") + b"\xff\xd8garbage" * 99,
    "jpeg with restart markers mixed up": restart_markers(),
    "tiff in the colours of LAB": saved(Image.merge("LAB", [Image.fromarray(grey())] * 3), "TIFF"),
    "webp": saved(scene(), "WEBP", quality=80),
    "webp alpha": saved(np.dstack([scene(), ALPHA]), "WEBP", quality=90),
    **{
        f"jpeg orientation {turn}": with_orientation(scene(), turn, "JPEG", quality=95)
        for turn in range(1, 9)
    },
}
"""What must be shown as Pillow shows it."""


def damaged_checksum():
    data = bytearray(saved(scene(), "PNG"))
    data[data.index(b"IDAT") - 4 + 8 + 40] ^= 255
    return bytes(data)


def bomb(side):
    """A PNG that says it is huge; were it decoded, 27 GB would be needed for a side of 96,000."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10**6))


PLAIN = saved(scene(seed=5), "PNG")
BAD = {
    "zero bytes": (b"", "empty file"),
    "one byte": (b"\xff", "not a picture"),
    "zeros": (bytes(5000), "not a picture"),
    "text": (b"this is text, and no picture\n" * 9, "not a picture"),
    "html": (b"<!doctype html><html><body>404 Not Found</body></html>", "not a picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "not a picture"),
    "pdf": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", "not a picture"),
    "zip": (b"PK\x03\x04" + bytes(60), "not a picture"),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "not a picture",
    ),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", ""),
    "png header alone": (PLAIN[:8], ""),
    "png cut short": (PLAIN[: len(PLAIN) // 2], "cannot be decoded"),
    "png with a wrong checksum": (damaged_checksum(), "cannot be decoded"),
    "jpeg cut short": (saved(scene(), "JPEG")[:400], "cannot be decoded"),
    "jpeg header alone": (saved(scene(), "JPEG")[:4], ""),
    "gif cut short": (saved(PALETTE, "GIF")[:500], "cannot be decoded"),
    "gif of no size": (b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\x02\x00\x3b", ""),
    "tiff cut short": (saved(scene(), "TIFF")[:300], "cannot be decoded"),
    "webp cut short": (saved(scene(), "WEBP")[:100], ""),
    "bmp cut short": (saved(scene(), "BMP")[:300], "cannot be decoded"),
    "ppm cut short": (saved(scene(), "PPM")[:300], "cannot be decoded"),
    "ppm of no size": (b"P6\n0 0\n255\n", ""),
    "tiff of 32-bit floats": (saved(grey().astype(np.float32) / 255, "TIFF"), "32-bit grey"),
    "tiff of 32-bit integers": (saved(grey().astype(np.int32) * 2**16, "TIFF"), "32-bit grey"),
    "bomb": (bomb(96_000), "more than 178,956,970 pixels"),
    "bomb of 2^31 pixels a side": (bomb(2**31 - 1), ""),
    "png in which only the header is left": (PLAIN[:33], ""),
    "icon of no pictures": (b"\0\0\1\0\0\0", ""),
}
"""What is no picture, or none that can be shown, with how the reason begins ("" where Pillow words it)."""


def odd_places(folder):
    """Make what is no regular file; place -> how the reason begins."""
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("pool.png")
    (folder / "pool.png").symlink_to("loop.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "to a folder.png").symlink_to(folder / "folder.jpg")
    (folder / "zeros.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    (folder / "to a pipe.png").symlink_to("pipe.png")
    plug = socket.socket(socket.AF_UNIX)
    plug.bind(str(folder / "s.png"))
    plug.close()
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    return {
        "folder.jpg": "a folder, not a file",
        "to a folder.png": "a folder, not a file",
        "dangling.png": "no such file (No such file or directory)",
        "loop.png": "no such file (Too many levels of symbolic links)",
        "itself.png": "no such file (Too many levels of symbolic links)",
        "zeros.png": "neither a file nor a folder",
        "pipe.png": "neither a file nor a folder",
        "to a pipe.png": "neither a file nor a folder",
        "s.png": "neither a file nor a folder",
        "sparse.png": "more than 2,147,483,648 bytes",
        "none.png": "no such file (No such file or directory)",
        "a" * 300 + ".png": "no such file (File name too long)",
        "../outside.png": "outside the data folder",
        "zero\0byte.png": "the path holds a zero byte",
        "half\ud800.png": "the path holds what no file name can",
        "": "no path given",
        "folder.jpg/x.png": "no such file",
        "text.jpg/x.png": "no such file (Not a directory)",
    }


ODD_NAMES = [
    *(
        b"two words.png",
        b" leading.png",
        b"trailing .png",
        b"tab\there.png",
        b"new\nline.png",
        b"\nfirst.png",
    ),
    *(
        b"return\r.png",
        b"both\r\n.png",
        b"'single'.png",
        b'"double".png',
        b"a,b;c.png",
        b"-rf.png",
        b"--.png",
    ),
    *(b"caf\xe9.png", b"\xff\xfe\xfd.png", b"half \xf0\x9f.png", "café.png".encode(), b"cafe\xcc\x81.png"),
    *("猫.png".encode(), "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png".encode(), "\N{CAT FACE}.png".encode()),
    *(b"back\\slash.png", b"100%s%d.png", b"{study}.png", b"$HOME.png", b"~.png", b"*?[a].png", b"#.png"),
    *(
        b"<b>&amp;.png",
        b"UPPER.PNG",
        b"no suffix",
        b"wrong.jpg",
        b"wrong.txt",
        b"png",
        b"...png",
        b"\x7f\x1b[31m.png",
    ),
    b"x" * 251 + b".png",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of everything odd, and its manifest's rows: path -> file's bytes, or the reason's beginning."""
    folder = Path(tempfile.mkdtemp(prefix="odd-", dir=tmp_path_factory.getbasetemp()))
    good = {f"{name}.png": data for name, (data, _) in EXACT.items()}
    good |= {f"{name}.jpg": data for name, data in LOSSY.items()}
    bad = {f"{name}.jpg": each for name, each in BAD.items()}
    for path, content in {**good, **{path: content for path, (content, _) in bad.items()}}.items():
        (folder / path).write_bytes(content)
    named = {os.fsdecode(name): PLAIN + name for name in ODD_NAMES}
    for path, content in named.items():
        (folder / path).write_bytes(content)
    reasons = {path: reason for path, (_, reason) in bad.items()} | odd_places(folder)
    return folder, good | named, reasons


@pytest.fixture(scope="module")
def outcome(data, tmp_path_factory):
    """The table of samples and the quarantine, by the real path; it must not take for ever."""
    folder, good, reasons = data
    paths = [*good, *reasons]
    random.Random(0).shuffle(paths)  # noqa: S311
    frame = pd.DataFrame({"path": paths, "label": [str(row % 2) for row in range(len(paths))]})
    ended = []

    def work():
        places, problems = locate(paths, folder)
        examined, _ = examine(places, problems, Artifacts(tmp_path_factory.mktemp("artifacts")))
        ended.append(assemble(frame, places, examined, Columns("label")))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(60)
    if worker.is_alive():  # someone reads the pipe: let go, then fail
        os.close(os.open(folder / "pipe.png", os.O_WRONLY | os.O_NONBLOCK))
    [told] = ended
    return told


def test_there_are_at_least_sixty_odd_inputs(data):
    _, good, reasons = data
    assert len(EXACT) + len(LOSSY) + len(BAD) >= 60
    assert len(good) + len(reasons) >= 120


def test_every_odd_input_is_a_sample_or_is_set_aside_and_none_is_both(data, outcome):
    folder, good, reasons = data
    table, quarantine = outcome
    assert sorted(table.path) == sorted(str(folder / path) for path in good)
    assert sorted(quarantine.path) == sorted(reasons)


@pytest.mark.parametrize("name", [f"{name}.jpg" for name in BAD] + ["folder.jpg", "sparse.png", "pipe.png"])
def test_what_cannot_be_shown_is_set_aside_with_its_reason(data, outcome, name):
    [reason] = outcome[1].reason[outcome[1].path == name]
    assert reason.startswith(data[2][name])
    assert reason
    assert "\n" not in reason
    assert len(reason) < 200


def test_what_is_no_file_is_set_aside_with_its_reason(data, outcome):
    found = dict(zip(outcome[1].path, outcome[1].reason, strict=True))
    for path, start in data[2].items():
        assert found[path].startswith(start), path


def by_pillow(content, spec):
    """Decode, resize and crop as one would with Pillow alone: (3, crop, crop)."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        image, alpha = Image.new("RGB", image.size, "white"), image.convert("RGBA")
        image.paste(alpha, mask=alpha.getchannel("A"))
    image = image.convert("RGB")
    short = min(image.size)
    size = [max(spec.crop, round(side * spec.resize / short)) for side in image.size]
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = ((side - spec.crop) // 2 for side in size)
    return np.asarray(image.crop((left, top, left + spec.crop, top + spec.crop))).transpose(2, 0, 1)


def blends(name):
    return "alpha" in name


def place_of(outcome, path):
    """Where the sample lies that the table has for a path; a test fails here if it has none."""
    [place] = [place for place in outcome[0].path if os.path.basename(place) == path]  # noqa: PTH119
    return Path(place)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_stored_without_loss_is_shown_to_the_byte(outcome, name):
    whole = ImageSpec(min(EXACT[name][1].shape[:2]), 1, (0.0,) * 3, (1.0,) * 3)  # resizes nothing
    place = place_of(outcome, f"{name}.png")
    expected = EXACT[name][1].astype(int)
    height, width = expected.shape[:2]
    shown = pixels(place.read_bytes(), whole)[:, 0, 0]
    assert np.abs(shown - expected[(height - 1) // 2, (width - 1) // 2]).max() <= blends(name)
    if min(height, width) > 20:
        square = pixels(place.read_bytes(), ImageSpec(min(height, width), 28, (0.0,) * 3, (1.0,) * 3))
        top, left = (height - 28) // 2, (width - 28) // 2
        part = expected[top : top + 28, left : left + 28].transpose(2, 0, 1)
        assert np.abs(square - part).max() <= blends(name)


@pytest.mark.parametrize("name", [*(f"{name}.png" for name in EXACT), *(f"{name}.jpg" for name in LOSSY)])
def test_what_the_network_sees_is_what_pillow_gives_for_the_same_spec(outcome, name):
    content = place_of(outcome, name).read_bytes()
    if name == "png 16 bit colour.png":
        pytest.skip("Pillow reads its upper bytes, which is checked above")
    found = pixels(content, SPEC).astype(int)
    assert np.abs(found - by_pillow(content, SPEC)).max() <= blends(name)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_of_a_photograph_shows_the_same_upright_picture(turn):
    upright = pixels(saved(scene(), "JPEG", quality=95), SPEC).astype(int)
    other = pixels(LOSSY[f"jpeg orientation {turn}"], SPEC).astype(int)
    assert np.abs(upright - other).max() < 12


@pytest.mark.parametrize("raw", ODD_NAMES, ids=ascii)
def test_any_name_leads_back_to_its_file(outcome, raw, tmp_path):
    place = place_of(outcome, os.fsdecode(raw))
    [digest] = outcome[0].digest[outcome[0].path == str(place)]
    assert digest == digest_bytes(PLAIN + raw)
    write_table(tmp_path / "table.csv", outcome[0])
    back = read_table(tmp_path / "table.csv").set_index("digest").path[digest]
    assert digest_bytes(Path(back).read_bytes()) == digest


def test_both_tables_are_read_back_as_they_were_written(outcome, tmp_path):
    for name, table in zip(("samples", "quarantine"), outcome, strict=True):
        expected = table.assign(path=table.path.str.replace("\ud800", "\\ud800"))  # has no bytes: is spelled
        write_table(tmp_path / f"{name}.csv", table)
        assert read_table(tmp_path / f"{name}.csv").to_dict("list") == expected.to_dict("list")
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == list(expected.path)


def test_the_report_shows_any_name_and_is_utf8(data, outcome):
    table, quarantine = outcome
    names = [*table.path, *quarantine.path, "class \udcf6"]
    scores = {metric: {"value": 0.5, "ci95": [0.25, 0.75]} for metric in METRICS}
    summary = {
        **dict.fromkeys(("study", "target"), "s"),
        "headline": "accuracy",
        "samples": {"total": 1, "extracted": 1, "reused": 0, "quarantined": 0},
        "experiments": {"total": 1, "trained": 1, "reused": 0},
        "best": {"experiment": "e", "split": "s", "metrics": scores},
        "calibration": {
            **dict.fromkeys(("expected_calibration_error", "before_scaling"), 0.1),
            "temperature": 1.0,
            "bins": [],
        },
        **{key: [] for key in ("stages", "scores", "operating_points", "references")},
        **{key: {} for key in ("notes", "features", "versions")},
    }
    wrong = [Wrong(name, name, name, 0.5, "") for name in names]
    page = render(
        summary, Confusion(names[:2], np.eye(2)), wrong, list(quarantine.itertuples(index=False)), {}
    )
    assert page.encode()
    assert "caf\\udce9.png" in page
    assert "猫.png" in page


@pytest.mark.parametrize("raw", ODD_NAMES, ids=ascii)
def test_a_refusal_that_names_any_file_is_one_line_that_can_be_printed(raw):
    bad = pd.DataFrame({"path": [os.fsdecode(raw)], "reason": ["empty file"]})
    with pytest.raises(RequestError) as told:
        check_enough(pd.DataFrame({"label": [], "weight": []}), bad, 2, most_bad=0.1)
    assert str(told.value).isprintable()
    assert str(told.value).encode()


# Names and copies, all the way from a folder or a manifest to the split


def folder_of(place, names):
    """Two classes of pictures with the given names; every file has bytes of its own."""
    for number, name in enumerate(names):
        for kind in (b"cat", b"d\xf6g"):
            path = place / os.fsdecode(kind) / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PLAIN + kind + b"%d" % number)
    return place


def table_of(frame, folder, artifacts, target):
    places, problems = locate(frame["path"].tolist(), folder)
    examined, read = examine(places, problems, artifacts)
    return *assemble(frame, places, examined, Columns(target)), read


def test_a_folder_of_odd_names_is_listed_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tasks.core.digest.RACY_NS", -(10**15)
    )  # files are remembered however lately they changed
    names = [name for name in ODD_NAMES if name.lower().endswith(b".png") and not name.startswith(b".")]
    folder = folder_of(tmp_path / os.fsdecode(b"d\xe4ta"), names)
    frame = scan_folder(folder)
    table, quarantine, read = table_of(frame, folder, Artifacts(tmp_path / "a"), "class")
    assert (len(table), len(quarantine), read) == (2 * len(names), 0, 2 * len(names))
    assert set(map(os.fsencode, table.label)) == {b"cat", b"d\xf6g"}
    again, _, read = table_of(scan_folder(folder), folder, Artifacts(tmp_path / "a"), "class")
    assert read == 0
    assert again.equals(table)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_manifest_of_odd_names_leads_to_the_same_files(tmp_path, start):
    names = [name for name in ODD_NAMES if not name.startswith(b" ") and b"\r" not in name]
    folder = folder_of(tmp_path, names)
    rows = [
        b'"%s/%s",%s' % (b"cat", name.replace(b'"', b'""'), b"x" if number % 2 else b"y")
        for number, name in enumerate(names)
    ]
    (folder / "manifest.csv").write_bytes(start + b"path,label\n" + b"\n".join(rows) + b"\n")
    frame = read_manifest(folder / "manifest.csv", ["label"])
    table, quarantine, _ = table_of(frame, folder, Artifacts(tmp_path / "a"), "label")
    assert quarantine.empty
    found = {os.fsencode(path) for path in table.path}
    assert found == {os.fsencode(folder) + b"/cat/" + name for name in names}


def test_ten_names_of_the_same_bytes_are_one_sample_on_one_side(tmp_path):
    for number in range(40):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PLAIN + b"%d" % number)
    original = tmp_path / "data" / "a" / "00.png"
    for number in range(4):
        (original.parent / f"copy-{number}.png").write_bytes(original.read_bytes())
        (original.parent / f"hard-{number}.png").hardlink_to(original)
        (original.parent / f"soft-{number}.png").symlink_to(original)
    frame = scan_folder(tmp_path / "data")
    table, quarantine, _ = table_of(frame, tmp_path / "data", Artifacts(tmp_path / "artifacts"), "class")
    assert (len(frame), len(table), len(quarantine)) == (52, 40, 0)
    for seed in range(20):
        test = split_table(table, SplitSpec("random"), seed)
        sides = {
            bool(test[table.digest.tolist().index(digest_bytes(path.read_bytes()))])
            for path in original.parent.iterdir()
            if digest_bytes(path.read_bytes()) == digest_bytes(original.read_bytes())
        }
        assert len(sides) == 1
        assert set(table.digest[test]).isdisjoint(table.digest[~test])


def test_a_file_that_may_not_be_read_is_set_aside_and_the_rest_goes_on():
    """In a process of its own, since root may read everything until it is no longer root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "artifacts").mkdir(mode=0o777)
        (Path(folder) / "artifacts").chmod(0o777)
        for name in ("open.png", "closed.png"):
            (Path(folder) / name).write_bytes(PLAIN)
        (Path(folder) / "closed.png").chmod(0)
        (Path(folder) / "within").mkdir()
        (Path(folder) / "within" / "x.png").write_bytes(PLAIN)
        (Path(folder) / "within").chmod(0)
        program = """
            import os, sys
            from pathlib import Path
            from PIL import Image
            from tasks.core.artifacts import Artifacts
            from tasks.core.samples import examine
            folder = sys.argv[1]
            Image.init()  # what is imported later may not be readable either
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            paths = [f"{folder}/{name}" for name in ("open.png", "closed.png", "within/x.png")]
            told, _ = examine(paths, ["", "", ""], Artifacts(Path(folder) / "artifacts"))
            print([item.problem for item in told])
        """
        command = [sys.executable, "-c", textwrap.dedent(program), folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        (Path(folder) / "within").chmod(0o755)
    assert done.stdout == (
        "['', 'cannot be read (Permission denied)', 'no such file (Permission denied)']\n"
    ), done.stderr
