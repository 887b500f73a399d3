"""Ways to run a prefix: each is the same function, and a row's bits do not depend on its company."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.core import engines
from tasks.core.backbones import find_backbone
from tasks.core.choice import MOST_ERROR, relative_error
from tasks.core.cuts import Prefix
from tasks.core.engine import open_engine, probe_input, run_activations
from tasks.core.engines import CPU_BATCH, CPU_ENGINES, Unavailable, build
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec
from tasks.core.networks import freeze, load_network
from tasks.core.taps import Tap

BACKBONE = find_backbone("lite0", resize=64, crop=64)
SPEC = BACKBONE.preprocessing
TAPS = (Tap("blocks.1", "none"), Tap("blocks.2", "mean+std"), Tap("bn2", "mean"))
QUICK = ("channels_last", "eager", "openvino")
ALL = [*QUICK, pytest.param("compiled", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_network(BACKBONE)


@pytest.fixture(scope="module")
def prefix(network) -> Prefix:
    return Prefix(network, TAPS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.mark.parametrize("name", ALL)
def test_every_engine_gives_the_uncut_networks_rows(network, prefix, cache, name):
    engine = build(name, prefix, SPEC, cache)
    x = probe_input(SPEC, engine.batch)
    rows = engine.forward(x)
    with torch.inference_mode():
        last = network.global_pool(network.forward_features((torch.from_numpy(x).float() - 127) / 128))
    assert [row.dtype for row in rows] == [np.float32] * 3
    assert relative_error(rows[2:], [last.numpy()]) < 1e-5
    eager = build("eager", prefix, SPEC, cache)
    whole = [
        np.concatenate(parts)
        for parts in zip(
            *map(eager.forward, np.split(np.concatenate([x, x]), 2 * len(x) // eager.batch)), strict=True
        )
    ]
    assert relative_error(rows, [block[: len(x)] for block in whole]) < 1e-5 < MOST_ERROR


@pytest.mark.parametrize("name", ALL)
def test_a_rows_bits_do_not_depend_on_its_place_or_company(prefix, cache, name):
    engine = build(name, prefix, SPEC, cache)
    x = probe_input(SPEC, engine.batch)
    other = probe_input(SPEC, 2 * engine.batch)[engine.batch :]
    rows = engine.forward(x)
    order = np.random.default_rng(1).permutation(engine.batch)
    mixed = np.where((np.arange(engine.batch) % 3 == 0)[:, None, None, None], x, other)
    for block, moved, beside in zip(rows, engine.forward(x[order]), engine.forward(mixed), strict=True):
        assert moved.tobytes() == block[order].tobytes()
        assert beside[::3].tobytes() == block[::3].tobytes()


def test_engines_do_not_touch_each_others_bits(network, prefix, cache):
    eager = build("eager", prefix, SPEC, cache)
    x = probe_input(SPEC, eager.batch)
    before = [row.tobytes() for row in eager.forward(x)]
    for name in QUICK:
        build(name, prefix, SPEC, cache)
    activations = np.zeros((1, 40, 8, 8), np.float32)
    list(run_activations(Prefix(network, [Tap("bn2")], start="blocks.2"), lambda some: activations, ["a"]))
    assert [row.tobytes() for row in eager.forward(x)] == before
    assert [row.tobytes() for row in build("eager", prefix, SPEC, cache).forward(x)] == before


def test_a_converted_network_is_kept_and_gives_the_same_bits(prefix, tmp_path, monkeypatch):
    first = build("openvino", prefix, SPEC, tmp_path)
    x = probe_input(SPEC, first.batch)
    rows = first.forward(x)
    monkeypatch.setattr(engines, "PixelsToTaps", None)  # nothing is converted again
    again = build("openvino", prefix, SPEC, tmp_path).forward(x)
    assert [row.tobytes() for row in again] == [row.tobytes() for row in rows]
    assert [path.name for path in tmp_path.iterdir()] == [f"openvino-{CPU_BATCH['openvino']}"]


@pytest.mark.parametrize("hurt", ["model.xml", "model.bin", "seal"])
def test_a_damaged_converted_network_is_converted_anew(prefix, tmp_path, hurt):
    first = build("openvino", prefix, SPEC, tmp_path)
    x = probe_input(SPEC, first.batch)
    rows = first.forward(x)
    [kept] = tmp_path.iterdir()
    file = kept / hurt
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.unlink()  # the first engine still reads the old one
    file.write_bytes(data)
    again = build("openvino", prefix, SPEC, tmp_path).forward(x)
    assert [row.tobytes() for row in again] == [row.tobytes() for row in rows]
    assert engines._is_whole(kept)


def test_converting_sends_nothing_home(tmp_path):
    """OpenVINO's own telemetry would; it must not even be loaded."""
    code = (
        "import sys, torch\n"
        "from tests_tiny import tiny\n"
        "from tasks.core.engines import build\n"
        "build('openvino', *tiny(), __import__('pathlib').Path(sys.argv[1]))\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry') and sys.modules[name]]\n"
    )
    (tmp_path / "tests_tiny.py").write_text(
        "from torch import nn\n"
        "from tasks.core.cuts import Prefix\n"
        "from tasks.core.media import ImageSpec\n"
        "from tasks.core.taps import Tap\n"
        "def tiny():\n"
        "    spec = ImageSpec(8, 8, (0.0,) * 3, (1.0,) * 3)\n"
        "    return Prefix(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval(), [Tap('0')]), spec\n"
    )
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "cache")], check=True, env=home, timeout=120)
    assert not list(tmp_path.rglob("*telemetry*"))


class Branching(nn.Module):
    """Asks for values, which symbols do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if y.sum() > 0 else -y


TINY = ImageSpec(resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize("name", ["openvino", "compiled"])
def test_a_network_that_cannot_be_traced_runs_eager(tmp_path, name):
    prefix = Prefix(freeze(Branching()), [Tap("conv", "max")])
    with pytest.raises(Unavailable, match="traced"):
        build(name, prefix, TINY, tmp_path)
    with pytest.raises(RequestError, match=f'engine = "{name}": the network cannot be traced'):
        open_engine(prefix, TINY, tmp_path, 10, pinned=name)
    engine = open_engine(prefix, TINY, tmp_path, 10**9)
    assert engine.name in ("eager", "channels_last")
    assert engine.forward(probe_input(TINY, engine.batch))[0].shape == (engine.batch, 4)


def test_openvino_that_is_not_installed_is_told(prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'headstart\[cpu\]'"):
        open_engine(prefix, SPEC, tmp_path, 10, pinned="openvino")


def test_compiling_needs_a_compiler(prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="compiler"):
        build("compiled", prefix, SPEC, tmp_path)


@pytest.mark.parametrize("name", [name for name in CPU_ENGINES if name != "compiled"])
def test_a_pinned_engine_is_the_one_that_runs(prefix, cache, name):
    assert open_engine(prefix, SPEC, cache, 1, pinned=name).name == name


def test_the_probe_is_the_same_each_time_and_looks_like_pictures():
    x = probe_input(SPEC, 4)
    assert (x.shape, x.dtype) == ((4, 3, 64, 64), np.uint8)
    np.testing.assert_array_equal(x, probe_input(SPEC, 4))
    assert len({picture.tobytes() for picture in x}) == 4
    steps = np.abs(np.diff(x.astype(int), axis=3))
    assert np.median(steps) < x.std() / 2


# From stored activations


def test_activations_lead_to_the_rows_that_pixels_lead_to(network, cache):
    taps = [Tap("blocks.3", "mean+std"), Tap("bn2", "mean")]
    first = build("eager", Prefix(network, [Tap("blocks.2", "none"), *taps]), SPEC, cache)
    x = probe_input(SPEC, first.batch)
    activations, *expected = first.forward(x)
    names = [str(number) for number in range(first.batch - 3)]
    batches = list(
        run_activations(
            Prefix(network, taps, start="blocks.2"), lambda some: activations[list(map(int, some))], names
        )
    )
    assert [name for batch in batches for name in batch.digests] == names
    rows = [np.concatenate(parts) for parts in zip(*(batch.rows for batch in batches), strict=True)]
    assert relative_error(rows, [block[: len(names)] for block in expected]) < 1e-5


def test_pooling_alone_needs_no_layer(network, cache):
    prefix = Prefix(network, [Tap("blocks.2", "mean")], start="blocks.2")
    activations = np.random.default_rng(0).normal(size=(20, 40, 8, 8)).astype(np.float32)
    names = [str(number) for number in range(20)]
    rows = np.concatenate(
        [
            batch.rows[0]
            for batch in run_activations(prefix, lambda some: activations[list(map(int, some))], names)
        ]
    )
    np.testing.assert_allclose(rows, activations.mean((2, 3)), rtol=1e-5, atol=1e-6)
