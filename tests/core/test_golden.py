"""Golden numbers: results change only together with their version.

Everything stored is named by what it was made from, and a version stands in that name for the code.
When a test here fails, the code gives other results than those stored under the same name: either
that was not meant, or the version in `tasks/core/versions.py` must be raised and its numbers, which
the failure prints, added here beside the old ones.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tasks.core import versions
from tasks.core.backbones import find_backbone
from tasks.core.copies import near_copies
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.engine import run_prefix
from tasks.core.engines import build
from tasks.core.media import ImageSpec, pixels
from tasks.core.metrics import TestPart, draw_groups, score
from tasks.core.networks import freeze, load_network
from tasks.core.selection import Rows, train_softmax
from tasks.core.taps import Tap

TestPart.__test__ = False  # a name that pytest would take for tests

SPEC = ImageSpec(resize=24, crop=20, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))

Numbers = Mapping[str, object]


def check(name: str, known: Mapping[int, Numbers], found: Numbers, within: float, **other: float) -> None:
    """Hold numbers against those that belong to the version in force.

    Args:
        name: of the constant.
        known: version -> its numbers; texts must be equal.
        found: what the code gives now.
        within: how far a number may be off, since processors differ.
        other: the same for the numbers whose key ends with that word.
    """
    version = getattr(versions, name)
    spelled = "\n".join(f"        {key!r}: {value!r}," for key, value in found.items())
    assert version in known, (
        f"versions.{name} = {version} has no numbers yet; add\n    {version}: {{\n{spelled}\n    }},"
    )
    expected = known[version]
    assert found.keys() == expected.keys()
    wrong = [
        key
        for key, value in found.items()
        if not _near(value, expected[key], other.get(key.split()[-1], within))
    ]
    assert not wrong, (
        f"{', '.join(wrong)}: other results than those stored under versions.{name} = {version}; if that is "
        f"meant, raise versions.{name} and add its numbers\n    {version + 1}: {{\n{spelled}\n    }},"
    )


def _near(value: object, expected: object, allowed: float) -> bool:
    if isinstance(value, str):
        return value == expected
    return bool(value == pytest.approx(expected, rel=0, abs=allowed))


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8, smooth with some edges; whole numbers alone, the same everywhere."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((5 * x + 3 * y + 40 * c + x * y // 7 + 60 * ((x // 9 + y // 7 + c) % 2)) % 256).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def series(*shape: int, step: int = 37) -> np.ndarray:
    """Numbers from -0.5 to 0.5 that look mixed; whole-number arithmetic, the same everywhere."""
    n = np.arange(np.prod(shape))
    return ((n * n * n * step + n * n) % 9973 % 101 / 100 - 0.5).reshape(shape)


def rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in np.ravel(values)]


# Files and a spec -> pixels

MEDIA: dict[int, Numbers] = {
    1: {
        "made smaller": "a8d991dbc602fb85bda7d56231cb42b796c8a6f4",
        "made larger": "96ce500339a0585470fb416b25a6345334e5a997",
        "as it is": "e74bae242855d4e6f5dd16dcf64a03792f807169",
        "transparent": "b6743ee61f6872813c6ce4e8613ad9b665038d2a",
        "grey of 16 bits": "abbfc97065580121f23251d47153376ca5b7f415",
        "palette": "1cfd0504cfb2241c3ecf4f374b3b2ad62b83803e",
        "down, bilinear": "8731a5a2cf54c155f5526502c90d70a65df5bc58",
        "squash": "ef11a914af17761e265ef517fbd676ebc0fa664a",
        "hflip": "1d94804311383ecdb4b18f32e78089efe1430158",
        "crop:1": "b123a98d8878c3f56bf3bab6375895baf9d97c18",
        "jpeg": [71.0, 51.0, 111.0, 91.0, 110.0, 90.0, 150.0, 130.0, 151.0, 131.0, 191.0, 171.0],
    },
}


def media() -> Numbers:
    """Lossless files give digests; a JPEG, whose decoders differ by a level, gives means of its quarters."""
    palette = Image.fromarray(picture(40, 50, 1)[..., 0], "P")
    palette.putpalette(picture(16, 16).ravel().tolist())
    lossless = {
        "made smaller": encoded(Image.fromarray(picture(70, 53)), "PNG"),
        "made larger": encoded(Image.fromarray(picture(11, 17)), "PPM"),
        "as it is": encoded(Image.fromarray(picture(24, 24)), "BMP"),
        "transparent": encoded(Image.fromarray(picture(40, 40, 4), "RGBA"), "PNG"),
        "grey of 16 bits": encoded(
            Image.fromarray(picture(40, 50, 1)[..., 0].astype(np.uint16) * 257), "PNG"
        ),
        "palette": encoded(palette, "PNG"),
    }
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    y, x, c = np.ogrid[:130, :97, :3]
    jpeg = encoded(Image.fromarray((x + y // 2 + 40 * c).astype(np.uint8)), "JPEG", quality=95, exif=exif)
    quarters = pixels(jpeg, SPEC).reshape(3, 2, 10, 2, 10).mean((2, 4))
    wide = lossless["made smaller"]
    others = {
        "down, bilinear": pixels(wide, replace(SPEC, fit="down", interpolation="bilinear")),
        "squash": pixels(wide, replace(SPEC, fit="squash")),
        "hflip": pixels(wide, SPEC, view="hflip"),
        "crop:1": pixels(wide, SPEC, view="crop:1", digest="0"),
    }
    return {
        **{name: digest_bytes(pixels(data, SPEC).tobytes()) for name, data in lossless.items()},
        **{name: digest_bytes(found.tobytes()) for name, found in others.items()},
        "jpeg": rounded(quarters),
    }


def test_pixels_are_those_of_their_version():
    check("MEDIA", MEDIA, media(), 1.5)


# Pixels, a backbone and a tap -> a row of features

EXTRACTOR: dict[int, Numbers] = {
    1: {
        "mean": [0.1771612, -0.09370424, -0.6066447, 0.5080179, -0.4047267, -0.8740088],
        "mean+std": [-1.143931, -0.07502867, 1.49966, 1.786869, -0.8515034, 0.1724261, 1.500012, 1.877719],
        "max": [2.918442, 5.925794, 3.148335, 3.890533, 2.214252, 8.542869, 2.738222, 5.109359],
        "none": [-0.2664006, -5.617877, 2.239902, -1.518284, 2.412607, -2.252378, -1.086727, 2.545689],
        "tokens cls": [
            1.197745,
            -1.141085,
            -0.5579435,
            0.001660843,
            -0.04745586,
            -0.5716468,
            0.1810379,
            -0.8602918,
            -0.0405279,
            0.1207737,
            0.03257738,
            -0.5505613,
        ],
        "lite0 last": [1.015835, 1.079029, 1.082018, 0.7627844, 1.193401, 1.088253, 1.161489, 0.8253328],
        "lite0 middle": [5.727902, 0.2456557, 6.430971, 2.801676, 0.1557163, -5.978152, 7.616274, 4.236312],
    },
}


def small_network() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 6, 1),
    )
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            numbers = series(*tensor.shape) + (1.0 if name.endswith(("running_var", "1.weight")) else 0.0)
            tensor.copy_(torch.from_numpy(numbers))
    return freeze(network)


class Tokens(nn.Module):
    """(B, C, H, W) -> (B, H * W, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


def rows_of(network: nn.Module, taps: list[Tap], spec: ImageSpec, folder: Path) -> list[np.ndarray]:
    """One (2, ...) a tap: two pictures through the plainest engine."""
    samples = []
    for number, (height, width) in enumerate([(70, 53), (40, 60)]):
        data = encoded(Image.fromarray(picture(height, width)), "PPM")
        (folder / f"{number}.ppm").write_bytes(data)
        samples.append((digest_bytes(data), folder / f"{number}.ppm"))
    engine = build("eager", Prefix(network, taps), spec, folder)
    [batch] = run_prefix(engine, samples, spec)
    return batch.rows


def extractor(folder: Path) -> Numbers:
    """Rows of a small network at each pooling, and a few features of the bundled one."""
    taps = [Tap("4", "mean"), Tap("1", "mean+std"), Tap("3", "max"), Tap("2", "none")]
    mean, both, top, whole = rows_of(small_network(), taps, SPEC, folder)
    [first] = rows_of(nn.Sequential(small_network(), Tokens()).eval(), [Tap("1", "cls")], SPEC, folder)
    lite0 = find_backbone("lite0", resize=72, crop=64)
    taps = [Tap("bn2", "mean"), Tap("blocks.4", "mean+std")]
    last, middle = rows_of(load_network(lite0), taps, lite0.preprocessing, folder)
    return {
        "mean": rounded(mean[:, ::2]),
        "mean+std": rounded(both[:, ::4]),
        "max": rounded(top[:, ::2]),
        "none": rounded(whole[:, ::2, 3, 4]),
        "tokens cls": rounded(first),
        "lite0 last": rounded(last.reshape(2, 4, 320).mean(2)),
        "lite0 middle": rounded(middle[:, ::56]),
    }


def test_rows_are_those_of_their_version(tmp_path):
    check("EXTRACTOR", EXTRACTOR, extractor(tmp_path), 1e-3)


# Rows, labels and strengths -> a head

TRAINER: dict[int, Numbers] = {
    1: {
        "tall: strength": 0.1,
        "tall: inner score": 0.5479687,
        "tall: weight": [-0.2681538, -0.1087022],
        "tall: bias": [1.741744, -2.462451, 0.7207078],
        "groups: strength": 0.1,
        "groups: inner score": 0.4137537,
        "groups: weight": [-0.353503, -0.1895518],
        "groups: bias": [0.5026729, -2.081809, 1.579136],
        "wide: strength": 0.01,
        "wide: inner score": 0.131368,
        "wide: weight": [
            -0.2202586,
            -0.1607725,
            0.08320651,
            -0.009176908,
            0.08971464,
            -0.2099538,
            -0.004217171,
        ],
        "wide: bias": [7.467708, -1.265473, -6.202251],
    },
}


def trained(n: int, columns: int, members: int) -> Numbers:
    """A head chosen among five strengths: its strength and inner score, and some of its weights."""
    labels = np.arange(n) // members * 5 % 7 % 3
    features = 4 * series(n, columns) + 2 * series(3, columns, step=13)[labels] + 3
    groups = np.array([f"g{row // members}" for row in range(n)])
    rows = Rows(features.astype(np.float32), labels, 1 + series(n, step=7), groups)
    chosen = train_softmax(rows, classes=3, strengths=(0.001, 0.01, 0.1, 1.0, 10.0), seed=1)
    return {
        "strength": chosen.head.strength,
        "inner score": float(f"{chosen.brier:.7g}"),
        "weight": rounded(chosen.head.weight[0, ::6]),
        "bias": rounded(chosen.head.bias),
    }


def trainer() -> Numbers:
    cases = {"tall": (60, 11, 1), "groups": (60, 11, 2), "wide": (24, 41, 1)}
    return {f"{case}: {key}": value for case, of in cases.items() for key, value in trained(*of).items()}


def test_heads_are_those_of_their_version():
    check("TRAINER", TRAINER, trainer(), 1e-5, score=1e-3)  # inner folds are fitted roughly


# Predictions -> scores and intervals

SCORER: dict[int, Numbers] = {
    2: {
        "some right: weighted accuracy": [0.6469594594594594, 0.5372862871021757, 0.7539487727760535],
        "some right: accuracy": [0.6166666666666667, 0.49776907001044934, 0.7274113247863248],
        "some right: balanced accuracy": [0.6308760683760684, 0.5002051767676767, 0.7437719456469457],
        "some right: average precision": [0.736967461252729, 0.6480643169171448, 0.8448960201698119],
        "some right: log loss": [0.8557301474077241, 0.7608405651610732, 0.9580378645261128],
        "all right: weighted accuracy": [1.0, 0.8146980318621477, 1.0],
        "all right: accuracy": [1.0, 0.8146980318621477, 1.0],
        "all right: balanced accuracy": [1.0, 0.8146980318621477, 1.0],
        "all right: average precision": [0.9957611832611832, 0.9861047979195913, 1.0],
        "all right: log loss": [0.6573968140743908, 0.6133231284952094, 0.7082123671133052],
    },
}


def scorer() -> Numbers:
    """Two splits of a grouped table, and one test part in which all is right."""
    groups = [f"g{row // 3}" for row in range(60)]
    draws = draw_groups(groups)
    parts = []
    for start in (0, 23):
        rows = np.arange(start, start + 30)
        labels = rows * 5 % 7 % 3
        scores = 2 * series(30, 3, step=29) + 0.6 * np.eye(3)[labels]
        log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        parts.append(TestPart(rows, labels, 1 + series(30, step=7), log_proba))
    right = [
        TestPart(part.rows, part.log_proba.argmax(axis=1), part.weights, part.log_proba) for part in parts
    ]
    return {
        f"{case}: {metric}": [found.value, found.low, found.high]
        for case, given in (("some right", parts), ("all right", right))
        for metric, found in score(given, draws).items()
    }


def test_scores_are_those_of_their_version():
    check("SCORER", SCORER, scorer(), 1e-6)  # replicates are counted in single precision


COPIES: dict[int, Numbers] = {
    1: {
        "pairs": "00 60, 02 62, 03 63, 04 64, 01 61, 05 65, 06 66, 08 68, 09 69, 10 70, 07 67",
        "similarities": [
            0.9993420243263245,
            0.9918972253799438,
            0.9902676343917847,
            0.986956000328064,
            0.9861412644386292,
            0.9528075456619263,
            0.9506819844245911,
            0.9483444690704346,
            0.908991277217865,
            0.9086446762084961,
            0.8481748700141907,
        ],
    },
}


def copies() -> Numbers:
    """Random rows, some of them twice with a little, and with much, added."""
    rows = np.random.default_rng(0).normal(size=(60, 16))
    noise = np.random.default_rng(1).normal(size=(12, 16))
    near = rows[:12] + noise * np.linspace(0.05, 0.6, 12)[:, None]
    pairs = near_copies(np.concatenate([rows, near]), [f"{number:02}" for number in range(72)])
    return {
        "pairs": ", ".join(f"{pair.first} {pair.second}" for pair in pairs),
        "similarities": [p.similarity for p in pairs],
    }


def test_near_copies_are_those_of_their_version():
    check("COPIES", COPIES, copies(), 1e-5)


# The guard itself


def test_other_numbers_or_another_version_are_told(monkeypatch):
    known = {1: {"a": [1.0, 2.0], "b": "x", "the score": 5.0}}
    monkeypatch.setattr(versions, "MEDIA", 1)
    check("MEDIA", known, {"a": [1.0, 2.0005], "b": "x", "the score": 5.05}, 1e-3, score=0.1)
    for change in ({"a": [1.0, 2.01]}, {"b": "y"}, {"the score": 5.2}):
        with pytest.raises(AssertionError, match=r"raise versions.MEDIA and add its numbers\s+2: \{"):
            check("MEDIA", known, known[1] | change, 1e-3, score=0.1)
    monkeypatch.setattr(versions, "MEDIA", 2)
    with pytest.raises(AssertionError, match=r"versions.MEDIA = 2 has no numbers yet; add\s+2: \{"):
        check("MEDIA", known, known[1], 0)


def test_every_version_is_guarded():
    constants = {name for name in vars(versions) if name.isupper()}
    assert constants == {"MEDIA", "EXTRACTOR", "TRAINER", "SCORER", "COPIES"}
