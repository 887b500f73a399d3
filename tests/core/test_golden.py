"""Golden numbers: results change only together with their version.

Everything stored is named by what it was made from, and a version stands in that name for the code.
When a test here fails, the code gives other results than those stored under the same name: either
that was not meant, or the version in `tasks/core/versions.py` must be raised and its numbers, which
the failure prints, added here beside the old ones.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tasks.core import versions
from tasks.core.answer_scores import draw_targets, questions_of
from tasks.core.answer_splits import inner_folds_of, split_by_answers
from tasks.core.answers import MICRO, UNKNOWN, Answers, label_weights
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import find_backbone
from tasks.core.class_scores import draw_classes
from tasks.core.copies import near_copies
from tasks.core.curve import Known, Lesson, shorter
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.engine import run_prefix
from tasks.core.engines import build
from tasks.core.heads import Grid, Inputs
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Network, Ridge, Shared, Softmax
from tasks.core.joint import Asked, train_jointly, train_separately
from tasks.core.ladder import Ladder, shares_of
from tasks.core.layers import part
from tasks.core.looks import Kept, Live, Looks
from tasks.core.media import ImageSpec, pixels
from tasks.core.metrics import TestPart, draw_groups, draw_scores, intervals, mean_scores
from tasks.core.networks import freeze, load_network
from tasks.core.probe import start_at_optimum
from tasks.core.search import Search
from tasks.core.selection import Rows, Trained, said_of, train_heads
from tasks.core.splits import SplitSpec
from tasks.core.store import holdings, write_shard
from tasks.core.taps import Tap
from tasks.core.trials import Part
from tasks.core.truth import Known as Labelled
from tasks.core.verdict import Cell, Depth, Measured, differences

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


# Rows, labels and hyper-parameters -> a head

TRAINER: dict[int, Numbers] = {
    2: {
        "tall: softmax weak: inner rough": [0.6034977, 1.010022, 0.507442, 4.286893],
        "tall: softmax weak: said single": [
            0.9976088,
            0.001011532,
            0.001379634,
            0.04699931,
            0.3341974,
            0.6188033,
        ],
        "tall: softmax strong: inner rough": [0.5538798, 0.9301732, 0.5514019, 0.5421798],
        "tall: softmax strong: said single": [
            0.6787578,
            0.1350908,
            0.1861514,
            0.3143807,
            0.3345306,
            0.3510887,
        ],
        "tall: softmax balanced: inner rough": [0.5575234, 0.9393863, 0.5849775, 1.426],
        "tall: softmax balanced: said single": [
            0.9485411,
            0.01845959,
            0.03299928,
            0.1110539,
            0.3548765,
            0.5340696,
        ],
        "tall: ridge: inner": [0.5506597, 0.9255514, 0.5346141, 0.4486331],
        "tall: ridge: said": [0.6672905, 0.16765, 0.1650595, 0.2567639, 0.3617838, 0.3814523],
        "tall: ridge balanced: inner": [0.5818616, 0.9663689, 0.5389408, 0.06944543],
        "tall: ridge balanced: said": [0.36242, 0.3104407, 0.3271394, 0.321742, 0.338165, 0.340093],
        "tall: knn: inner": [0.6472734, 1.072394, 0.5202492, 3.897717],
        "tall: knn: said": [0.8929055, 0.05432051, 0.05277402, 0.2859949, 0.6373842, 0.07662083],
        "tall: centroid: inner": [0.5322885, 0.8993325, 0.601073, 1.0],
        "tall: centroid: said": [0.8515745, 0.02719088, 0.1212346, 0.145207, 0.3544331, 0.5003599],
        "tall: mlp: inner single": [0.5072219, 0.8578497, 0.5520942, 1.121618],
        "tall: mlp: said single": [0.9870743, 0.008783091, 0.004142591, 0.2694454, 0.3363103, 0.3942443],
        "tall: mlp deep: inner single": [0.5827736, 0.9694021, 0.5223261, 0.9483299],
        "tall: mlp deep: said single": [0.4722393, 0.3520857, 0.1756751, 0.3763374, 0.3194928, 0.3041699],
        "groups: softmax weak: inner rough": [0.4255868, 0.6729577, 0.6391485, 2.079574],
        "groups: softmax weak: said single": [
            0.9998617,
            1.105273e-06,
            0.0001372328,
            0.07108248,
            0.1585151,
            0.7704024,
        ],
        "groups: softmax strong: inner rough": [0.4395805, 0.732147, 0.6768778, 0.3703391],
        "groups: softmax strong: said single": [
            0.7387719,
            0.09610606,
            0.165122,
            0.32455,
            0.3153385,
            0.3601115,
        ],
        "groups: softmax balanced: inner rough": [0.4136732, 0.6577472, 0.6689166, 0.8248851],
        "groups: softmax balanced: said single": [
            0.9721332,
            0.003688172,
            0.02417861,
            0.1444626,
            0.2913258,
            0.5642116,
        ],
        "groups: ridge: inner": [0.4463081, 0.7371503, 0.6578401, 0.305631],
        "groups: ridge: said": [0.6788272, 0.1671668, 0.1540061, 0.2777166, 0.3523913, 0.3698921],
        "groups: ridge balanced: inner": [0.4763651, 0.7911159, 0.5628245, 0.05218033],
        "groups: ridge balanced: said": [0.3777641, 0.2998103, 0.3224255, 0.3243966, 0.3389042, 0.3366992],
        "groups: knn: inner": [0.4826419, 0.8279255, 0.5207684, 1.102897],
        "groups: knn: said": [0.8912042, 0.05191257, 0.05688327, 0.2386567, 0.5610164, 0.2003269],
        "groups: centroid: inner": [0.3857853, 0.607229, 0.7244721, 1.0],
        "groups: centroid: said": [0.989267, 0.000174995, 0.01055804, 0.05624042, 0.2804157, 0.6633439],
        "groups: mlp: inner single": [0.3998385, 0.6704984, 0.7213569, 1.04255],
        "groups: mlp: said single": [0.9987424, 2.909104e-05, 0.001228504, 0.1906993, 0.3053701, 0.5039306],
        "groups: mlp deep: inner single": [0.5150846, 0.8535635, 0.5282105, 0.7739811],
        "groups: mlp deep: said single": [0.6393268, 0.2769882, 0.08368503, 0.4018063, 0.2773619, 0.3208319],
        "wide: softmax weak: inner rough": [0.1131311, 0.2348276, 0.9301934, 0.8020926],
        "wide: softmax weak: said single": [
            0.9948674,
            0.001908068,
            0.003224572,
            0.7402086,
            0.1327145,
            0.1270768,
        ],
        "wide: softmax strong: inner rough": [0.09382938, 0.2203809, 0.9650967, 0.2342801],
        "wide: softmax strong: said single": [
            0.7493792,
            0.1101858,
            0.1404351,
            0.5379398,
            0.2390685,
            0.2229917,
        ],
        "wide: softmax balanced: inner rough": [0.1087341, 0.2079895, 0.9301934, 0.4909747],
        "wide: softmax balanced: said single": [
            0.9362866,
            0.0243411,
            0.03937231,
            0.5860839,
            0.2116764,
            0.2022398,
        ],
        "wide: ridge: inner": [0.1807221, 0.334562, 0.9301934, 0.1626967],
        "wide: ridge: said": [0.6081556, 0.197891, 0.1939534, 0.3573112, 0.3075039, 0.335185],
        "wide: ridge balanced: inner": [0.08371104, 0.1222533, 0.9301934, 0.02975613],
        "wide: ridge balanced: said": [0.3849284, 0.3010179, 0.3140537, 0.3521189, 0.3262194, 0.3216617],
        "wide: knn: inner": [0.1624618, 0.393553, 0.9301934, 0.4975581],
        "wide: knn: said": [0.8910116, 0.05697694, 0.05201145, 0.5200873, 0.4259389, 0.0539738],
        "wide: centroid: inner": [0.07248871, 0.131286, 0.9650967, 1.0],
        "wide: centroid: said": [0.9963435, 0.0003048535, 0.003351606, 0.9334189, 0.02779743, 0.03878369],
        "wide: mlp: inner single": [0.2014659, 0.3037093, 0.7905803, 1.00425],
        "wide: mlp: said single": [0.998493, 0.0006039408, 0.0009030881, 0.5487409, 0.1948491, 0.25641],
        "wide: mlp deep: inner single": [0.1989268, 0.3313485, 0.8305299, 0.8971405],
        "wide: mlp deep: said single": [0.9981542, 0.0001502059, 0.00169556, 0.7406348, 0.1417804, 0.1175848],
        "views: softmax weak: inner rough": [0.4938752, 0.8675523, 0.8003378, 3.271483],
        "views: softmax weak: said single": [
            0.8854923,
            0.09580521,
            0.01870254,
            0.4127469,
            0.2776009,
            0.3096521,
        ],
        "views: softmax strong: inner rough": [0.4719244, 0.8412536, 0.7003378, 0.5119038],
        "views: softmax strong: said single": [
            0.6156747,
            0.1960288,
            0.1882965,
            0.3879651,
            0.3266326,
            0.2854023,
        ],
        "views: softmax balanced: inner rough": [0.4322634, 0.7771414, 0.7682432, 1.141072],
        "views: softmax balanced: said single": [
            0.7825146,
            0.1325251,
            0.0849603,
            0.3271107,
            0.3092656,
            0.3636238,
        ],
        "views: ridge: inner": [0.4304025, 0.7859211, 0.7908784, 0.3649844],
        "views: ridge: said": [0.5381744, 0.2576624, 0.2041631, 0.3597154, 0.3319194, 0.3083652],
        "views: ridge balanced: inner": [0.5217509, 0.9057192, 0.7179054, 0.07197023],
        "views: ridge balanced: said": [0.3566289, 0.3199635, 0.3234076, 0.328611, 0.3382004, 0.3331886],
        "views: knn: inner": [0.6136548, 1.029637, 0.6283784, 2.684924],
        "views: knn: said": [0.8407595, 0.05109342, 0.108147, 0.1985741, 0.3750279, 0.4263979],
        "views: centroid: inner": [0.4158948, 0.7543408, 0.7402027, 1.0],
        "views: centroid: said": [0.7896349, 0.08699284, 0.1233722, 0.2401026, 0.3774562, 0.3824412],
        "views: mlp: inner single": [0.4591582, 0.805489, 0.7013514, 0.8820497],
        "views: mlp: said single": [0.8326171, 0.06528652, 0.1020964, 0.3984517, 0.3209106, 0.2806377],
        "views: mlp deep: inner single": [0.4980966, 0.8694157, 0.6172297, 1.201337],
        "views: mlp deep: said single": [0.5121202, 0.4060747, 0.08180516, 0.3629444, 0.4134528, 0.2236028],
    },
}

HYPERS: dict[str, Hyper] = {
    "softmax weak": Softmax(0.01),
    "softmax strong": Softmax(1.0),
    "softmax balanced": Softmax(0.1, "balanced"),
    "ridge": Ridge(0.1),
    "ridge balanced": Ridge(10.0, "balanced"),
    "knn": Neighbours(4),
    "centroid": Centroid(),
    "mlp": Mlp((8,), learning_rate=0.01),
    "mlp deep": Mlp((8, 6), learning_rate=0.01, weight_decay=0.1, dropout=0.2, seed=1),
}

INNER = {"softmax": " rough", "ridge": "", "knn": "", "centroid": "", "mlp": " single"}
SAID = INNER | {"softmax": " single"}
"""How exact: folds of softmax are fitted roughly, and single precision ends where it may."""


def trained(n: int, columns: int, members: int, views: int = 1) -> Numbers:
    """Heads of every kind: what inner folds say of them, and what they say of rows that they have not seen.

    The last word of a key tells how exact its numbers are.
    """
    labels = np.arange(n) // members * 5 % 7 % 3
    shown = [
        4 * series(n, columns, step=step) + 2 * series(3, columns, step=13)[labels] + 3 for step in (37, 53)
    ]
    features = np.concatenate(shown[:views]).astype(np.float32)
    groups = np.array([f"g{row // members}" for row in range(n)])
    rows = Rows(features, labels, 1 + series(n, step=7), groups, views)
    heads = train_heads(rows, list(HYPERS.values()), classes=3, seed=1)
    unseen = (3 * series(2 * views, columns, step=41) + 3).astype(np.float32)
    calibration = [float(head.facts["temperature"]) for head in heads]
    plain = [head.predictor.tempered(1 / warmth) for head, warmth in zip(heads, calibration, strict=True)]
    found: dict[str, object] = {}
    for number, said in enumerate(said_of(plain, unseen, views)):
        name, facts = list(HYPERS)[number], heads[number].facts
        kind = HYPERS[name].kind
        scores = [facts[fact] for fact in ("inner_brier", "inner_log_loss", "inner_accuracy", "temperature")]
        found[f"{name}: inner{INNER[kind]}"] = rounded(np.array(scores))
        found[f"{name}: said{SAID[kind]}"] = rounded(np.exp(said))
    return found


def trainer() -> Numbers:
    cases = {"tall": (60, 11, 1), "groups": (60, 11, 2), "wide": (24, 41, 1), "views": (30, 11, 1, 2)}
    return {f"{case}: {key}": value for case, of in cases.items() for key, value in trained(*of).items()}


def test_heads_are_those_of_their_version():
    check("TRAINER", TRAINER, trainer(), 1e-5, rough=1e-3, single=1e-4)


# Looks, labels and a network's settings -> layers, and what they say

FINETUNER: dict[int, Numbers] = {
    1: {
        "everything: tried": "0.003 2 0, 0.01 2 0, 0.01 3 0, 0.01 3 1",
        "everything: briers": [0.06382132, 0.06109538, 0.001304922, 0.002807012],
        "everything: inner": [0.001996643, 0.0155224, 1.0],
        "everything: temperature rough": [0.3511235],
        "everything: said": [
            0.9956393,
            0.004358435,
            2.283951e-06,
            4.636937e-05,
            0.02533736,
            0.9746163,
            0.9997352,
            0.0002615672,
            3.198109e-06,
            9.740134e-05,
            0.9972196,
            0.002682966,
        ],
        "suffix: tried": "0.003 2 0, 0.01 2 0, 0.003 3 0, 0.003 2 1, 0.003 2 2",
        "suffix: briers": [0.1030453, 0.1430758, 0.1233601, 0.06174371, 0.05796399],
        "suffix: inner": [0.07324425, 0.1502723, 1.0],
        "suffix: temperature rough": [0.416935],
        "suffix: said": [
            0.9983167,
            0.001278352,
            0.0004049816,
            0.0005767885,
            0.1260463,
            0.873377,
            0.9995886,
            0.0001513305,
            0.0002600418,
            0.01008359,
            0.7311362,
            0.2587802,
        ],
        "live: tried": "0.003 2 0, 0.01 2 0, 0.01 3 0, 0.01 3 1",
        "live: briers": [0.5922732, 0.5883569, 0.5762781, 0.6042615],
        "live: inner": [0.5953704, 1.003388, 0.4294331],
        "live: temperature rough": [0.1796212],
        "live: said": [
            0.5867212,
            0.2105624,
            0.2027164,
            0.4572876,
            0.2722444,
            0.270468,
            0.5985456,
            0.2046705,
            0.1967839,
            0.5033948,
            0.2505704,
            0.2460348,
        ],
    },
}


def small_classifier() -> nn.Module:
    """The small network with a classifier of four classes."""
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    for tensor in end[2].parameters():
        tensor.data.copy_(torch.from_numpy(series(*tensor.shape)))
    return freeze(nn.Sequential(small_network(), end))


def lit(folder: Path, labels: np.ndarray) -> Live:
    """Pictures whose left or right side is brighter, by their class."""
    files, digests = [], []
    for number, label in enumerate(labels):
        shown = picture(26 + number % 5, 30).astype(int) // 2
        shown[:, : 15 if label == 1 else 0] += 60 + number % 7
        shown[:, 15 if label == 2 else 30 :] += 60 - number % 5
        data = encoded(Image.fromarray(shown.astype(np.uint8)), "PPM")
        files.append(str(folder / f"lit-{number}.ppm"))
        Path(files[-1]).write_bytes(data)
        digests.append(digest_bytes(data))
    return Live(files, digests, SPEC, ("centre", "hflip", "crop"))


def behind(cut: str, network: nn.Module, live: Live, artifacts: Artifacts) -> Kept:
    """What is kept at a cut of two views of the pictures."""
    held, rows, prefix = {}, np.arange(len(live.files)), Prefix(network, [Tap(cut, "none")])
    for view in ("centre", "rot180"):
        with torch.inference_mode():
            [found] = prefix(live.fixed(rows, view))
        place = artifacts.features / digest_bytes(view.encode())
        write_shard(place, live.digests, found.numpy(), {})
        held[view] = holdings(place, artifacts.seen("shard"))
    return Kept(held, np.array(live.digests, dtype=object))


def searched(network: nn.Module, settings: Network, looks: Looks, labels: np.ndarray) -> Numbers:
    """What a search chooses, what inner folds say of it, and what it says of the first four samples."""
    rows = np.arange(len(labels))
    known = Labelled(labels, 1 + series(len(rows), step=7), rows.astype(str).astype(object), 3)

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        layers = part(network, settings.cut, classes=3, blank=True)
        if settings.head_first:
            start_at_optimum(layers, looks, known.labels, known.weights, learnt, classes=3)
        return layers

    found = Search(settings, make, looks, known, rows[4:], rows[:4], 1).run()
    facts = [found.facts[fact] for fact in ("inner_brier", "inner_log_loss", "inner_accuracy")]
    warmth = float(str(found.facts["temperature"]))
    assert found.inner is not None
    return {
        "tried": ", ".join(f"{each.learning_rate} {each.epochs} {each.fold}" for each in found.tried),
        "briers": rounded(np.array([each.brier for each in found.tried])),
        "inner": rounded(np.array(facts)),
        "temperature rough": rounded(np.array([warmth])),
        "said": rounded(np.exp(found.said)),
    }


def finetuner(folder: Path) -> Numbers:
    labels = np.arange(28) * 5 % 7 % 3
    network, live = small_classifier(), lit(folder, labels)
    kept = behind("0.1", network, live, Artifacts(folder))
    whole = Network("", "pretrained", (0.003, 0.01), (2, 3), batch=8, folds=2, head_first=True)
    cases = {
        "everything": (whole, live),
        "suffix": (replace(whole, cut="0.1", folds=3, mixup=0.4, seed=2), kept),
        "live": (replace(whole, cut="0.0", head_first=False, earlier=1.0, batch_norm="live"), None),
    }
    found = {}
    for case, (settings, looks) in cases.items():
        looks = looks or behind(settings.cut, network, live, Artifacts(folder / case))
        told = searched(network, settings, looks, labels)
        found |= {f"{case}: {key}": value for key, value in told.items()}
    return found


def test_layers_are_those_of_their_version(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # products of a GPU have fewer digits
    check("FINETUNER", FINETUNER, finetuner(tmp_path), 1e-4, rough=1e-3)


# Predictions -> scores and intervals

SCORER: dict[int, Numbers] = {
    3: {
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
        "last class: precision": [0.4807692307692308, 0.25, 0.6650042625745948],
        "last class: recall": [0.7083333333333333, 0.41666666666666663, 0.9166666666666667],
        "last class: F1": [0.5727272727272728, 0.30552156177156176, 0.7340097402597402],
        "last class: average precision": [0.5787090026512111, 0.3431464916964372, 0.79003390116351],
    },
    4: {
        "some right: weighted accuracy": [0.6469594594594594, 0.5372862871021757, 0.7539487727760535],
        "some right: accuracy": [0.6166666666666667, 0.49776907001044934, 0.7274113247863248],
        "some right: balanced accuracy": [0.6308760683760684, 0.5002051767676767, 0.7437719456469457],
        "some right: average precision": [0.736967461252729, 0.6480643169171448, 0.8448960201698119],
        "some right: log loss": [0.8557301474077241, 0.7608405651610732, 0.9580378645261128],
        "all right: weighted accuracy": [1.0, 0.8146980318621477, 1.0],
        "all right: accuracy": [1.0, 0.8146980318621477, 1.0],
        "all right: balanced accuracy": [1.0, 0.6915028921812392, 1.0],
        "all right: average precision": [0.9957611832611832, 0.9861047979195913, 1.0],
        "all right: log loss": [0.6573968140743908, 0.6133231284952094, 0.7082123671133052],
        "last class: precision": [0.4807692307692308, 0.25, 0.6650042625745948],
        "last class: recall": [0.7083333333333333, 0.41666666666666663, 0.9166666666666667],
        "last class: F1": [0.5727272727272728, 0.30552156177156176, 0.7340097402597402],
        "last class: average precision": [0.5787090026512111, 0.3431464916964372, 0.79003390116351],
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
    cases = {
        "some right": mean_scores([draw_scores(part, draws) for part in parts]),
        "all right": mean_scores([draw_scores(part, draws) for part in right]),
        "last class": mean_scores([draw_classes(part, draws)[-1] for part in parts]),
    }
    return {
        f"{case}: {metric}": [found.value, found.low, found.high]
        for case, drawn in cases.items()
        for metric, found in intervals(drawn).items()
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


# A training part -> nested shares of it

CURVE: dict[int, Numbers] = {
    1: {
        "singles: 0.125": "3 9 28 34 40 50 58",
        "singles: 0.25": "2 3 9 26 28 34 39 40 41 50 58",
        "singles: 0.5": "2 3 9 14 17 20 26 28 32 33 34 39 40 41 46 50 52 56 57 58",
        "groups: 0.125": "4 5 26 27 56 57",
        "groups: 0.25": "4 5 26 27 28 29 52 53 56 57",
        "groups: 0.5": "4 5 26 27 28 29 32 33 34 35 38 39 40 41 52 53 56 57",
    },
}


def curve() -> Numbers:
    """Two thirds of a table of three classes, each sample a group of its own, and in groups of two."""
    rows = np.arange(60)
    known = Known(rows * 5 % 7 % 3, np.where(rows % 11 == 0, 0.0, 1.0), rows.astype(str))
    found = {}
    for case, members in (("singles", 1), ("groups", 2)):
        groups = np.array([f"g{row // members}" for row in rows])
        lesson = Lesson(Centroid(), rows // 2 % 3 > 0, rows // 2 % 3 == 0, seed=1)
        for share, [cut] in shorter(replace(known, groups=groups), [lesson]).items():
            found[f"{case}: {share}"] = " ".join(map(str, np.flatnonzero(cut.taken)))
    return found


def test_shares_are_those_of_their_version():
    check("CURVE", CURVE, curve(), 0)


# Cells -> what is said of them, and which shares are measured

VERDICT: dict[int, Numbers] = {
    1: {
        "singles: 0.25": "2 3 9 26 28 34 39 40 41 50 58",
        "singles: 0.5": "2 3 9 14 17 20 26 28 32 33 34 39 40 41 46 50 52 56 57 58",
        "groups: 0.25": "4 5 26 27 28 29 52 53 56 57",
        "groups: 0.5": "4 5 26 27 28 29 32 33 34 35 38 39 40 41 52 53 56 57",
        "balanced accuracy, 0.5: chosen": "late",
        "balanced accuracy, 1.0: chosen": "late",
        "balanced accuracy, 0.5: transfer, late less scratch": [
            0.20922364672364674,
            -0.04657206119162647,
            0.4351851851851852,
        ],
        "balanced accuracy, 0.5: depth, late less head": [
            0.11627492877492879,
            -0.10187554192988965,
            0.3075946969696969,
        ],
        "balanced accuracy, 1.0: transfer, late less scratch": [
            0.2879273504273505,
            0.13458333333333342,
            0.4771329365079364,
        ],
        "balanced accuracy, 1.0: depth, late less head": [
            0.06267806267806264,
            -0.06060606060606055,
            0.18257177871148444,
        ],
        "balanced accuracy, 1.0: labels, late less late": [0.10434472934472933, 0.0, 0.33699945887445887],
        "log loss, 0.5: chosen": "late",
        "log loss, 1.0: chosen": "late",
        "log loss, 0.5: transfer, late less scratch": [
            0.3166697964945078,
            0.165942251233087,
            0.45119975318873395,
        ],
        "log loss, 0.5: depth, late less head": [
            0.11443247330282003,
            -0.05389855782190953,
            0.27551315287490924,
        ],
        "log loss, 1.0: transfer, late less scratch": [
            0.25929717687045584,
            0.13635312439738836,
            0.3678516594568888,
        ],
        "log loss, 1.0: depth, late less head": [
            0.09183784213041188,
            -0.04228022268840243,
            0.22102623481255046,
        ],
        "log loss, 1.0: labels, late less late": [
            0.1418840124350979,
            0.12001087599330475,
            0.16524026384086984,
        ],
    },
}


DEPTHS = {"head": "head", "late": "suffix", "scratch": "scratch"}


def verdict() -> Numbers:
    """Shares of two thirds of a table, and how depths that were trained on shares differ over two splits."""
    rows, splits = np.arange(60), SplitSpec("by chance", seeds=(0, 1))
    labels, weights = rows * 5 % 7 % 3, np.where(rows % 11 == 0, 0.0, 1.0)
    grids = tuple(Grid(name, Inputs("net", ("last",)), (Softmax(1.0),)) for name in DEPTHS)
    ladder = Ladder(grids, tuple(DEPTHS.values()), splits, (0.125, 0.25, 0.5, 1.0), 60.0, {})
    found: dict[str, object] = {}
    for case, members in (("singles", 1), ("groups", 2)):
        groups = np.array([f"g{row // members}" for row in rows], dtype=object)
        *less, _ = shares_of(ladder, Part(splits, 1, groups, rows // 2 % 3 == 0), labels, weights)
        for share, cut in less:
            found[f"{case}: {share}"] = " ".join(map(str, np.flatnonzero(cut.training)))
    cells = [cell_of(depth, share, seed) for depth in DEPTHS for share in (0.5, 1.0) for seed in (0, 1)]
    depths = [Depth(name, kind) for name, kind in DEPTHS.items()]
    for metric in ("balanced accuracy", "log loss"):
        told = Measured(metric, depths, [cell(metric) for cell in cells], 30)
        for share in told.shares():
            found[f"{metric}, {share}: chosen"] = str(told.chosen(share))
        for each in differences(told):
            key = f"{metric}, {each.share}: {each.what}, {each.first} less {each.second}"
            found[key] = [each.value, each.low, each.high]
    return found


def cell_of(depth: str, share: float, seed: int) -> Callable[[str], Cell]:
    """A depth that is the better, the more samples it has; by metric."""
    groups = [f"g{row // 3}" for row in range(60)]
    rows = np.arange(23 * seed, 23 * seed + 30)
    labels = rows * 5 % 7 % 3
    base, step = {"head": (0.6, 29), "late": (0.9, 31), "scratch": (0.2, 33)}[depth]
    lead = base + 0.8 * share
    scores = 2 * series(30, 3, step=step) + lead * np.eye(3)[labels]
    log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    drawn = draw_scores(TestPart(rows, labels, 1 + series(30, step=7), log_proba), draw_groups(groups))
    return lambda metric: Cell(depth, share, seed, round(40 * share), 1 - lead / 3, drawn[metric], 1.0, 2.0)


def test_verdicts_are_those_of_their_version():
    check("VERDICT", VERDICT, verdict(), 1e-6)


# Answers to several targets -> parts, folds, weights in a joint loss, and scores

ANSWERS: dict[int, Numbers] = {
    1: {
        "test": "0 1 6 7 18 19 20 21 24 25 26 27 28 29 52 53 56 57",
        "fold 0": "10 11 32 33 38 39 44 45 46 47 50 51",
        "fold 1": "0 1 20 21 22 23 36 37 48 49 52 53",
        "fold 2": "2 3 14 15 28 29 30 31 34 35 40 41",
        "fold 3": "4 5 16 17 24 25 42 43 54 55 58 59",
        "fold 4": "6 7 8 9 12 13 18 19 26 27 56 57",
        "equal, none": [0.25, 0.5, 0.25, 0.034149],
        "equal, balanced": [0.25, 0.5, 0.25, 0.026935],
        "known, none": [0.215252, 0.633101, 0.151646, 0.031118],
        "known, balanced": [0.215252, 0.633101, 0.151646, 0.025856],
        "joint, 0": [-0.692796, -0.688131],
        "joint, 1": [-1.054354, -1.027571],
        "joint, 2": [-0.23214, -0.345509],
        "separate, 0": [-0.690999, -0.690264],
        "separate, 1": [-1.107404, -1.006308],
        "separate, 2": [-0.319945, -0.668454],
        "b, average precision": [0.384369, 0.041049],
        "b, AUROC": [0.515247, 0.059137],
        "b, F1": [0.322839, 0.056623],
        "micro average, average precision": [0.362029, 0.044091],
        "micro average, AUROC": [0.50875, 0.056261],
        "micro average, F1": [0.333333, 0.056663],
    },
}


def answers() -> Numbers:
    """Sixty samples, three targets of which some answers are unknown."""
    rows = np.arange(60)
    labels = np.column_stack([rows * 5 % 7 % 2, rows * 3 % 11 % 3, rows % 9 < 2]).astype(np.int64)
    labels[rows * 7 % 10 < 3, 0] = labels[rows * 3 % 8 < 4, 2] = UNKNOWN
    known = Answers(("a", "b", "c"), (("0", "1"), ("x", "y", "z"), ("0", "1")), labels)
    groups = [f"g{row // 2}" for row in rows]
    found: dict[str, object] = {
        "test": " ".join(map(str, np.flatnonzero(split_by_answers(groups, known, test=0.3, seed=1))))
    }
    folds = inner_folds_of(known, np.array(groups), seed=2)
    for number, (_, held) in enumerate(folds):
        found[f"fold {number}"] = " ".join(map(str, held))
    for way in ("equal", "known"):
        for classes in ("none", "balanced"):
            share = label_weights(known, 1 + series(60, step=7), way, {"b": 2.0}, classes)
            found[f"{way}, {classes}"] = [*share.sum(axis=0).tolist(), float(share[5].sum())]
    asked = Asked(series(60, 6, step=13), known, np.ones(60), folds)
    hypers: list[tuple[str, list[list[Trained]]]] = [
        ("joint", train_jointly(asked, [Shared((5,), 1e-2)])),
        ("separate", train_separately(asked, [Softmax(0.1)], seed=0)),
    ]
    for name, trained in hypers:
        for target, [each] in enumerate(trained):
            found[f"{name}, {target}"] = each.predictor.log_proba(asked.features[:2])[:, 0].tolist()
    part = TestPart(
        rows, labels[:, 1], np.ones(60), np.log(np.full((60, 3), 1 / 3)) + 0.1 * series(60, 3, step=5)
    )
    part = replace(part, log_proba=part.log_proba - np.log(np.exp(part.log_proba).sum(axis=1, keepdims=True)))
    drawn = draw_targets({"b": questions_of(part, None)}, draw_groups(groups, replicates=50))
    for name in ("b", MICRO):
        for metric, each in drawn[name].items():
            found[f"{name}, {metric}"] = [each.value, float(each.draws.std())]
    return found


def test_answers_are_those_of_their_version():
    check("ANSWERS", ANSWERS, answers(), 1e-3)


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
    guarded = {
        "MEDIA",
        "EXTRACTOR",
        "TRAINER",
        "FINETUNER",
        "SCORER",
        "COPIES",
        "CURVE",
        "VERDICT",
        "ANSWERS",
    }
    assert constants == guarded
