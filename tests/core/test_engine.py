"""The engine: each row is its own sample's, to the bit, whatever came with it."""

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tasks.core import engine
from tasks.core.backbones import find_backbone
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.engine import AHEAD, run_prefix
from tasks.core.engines import CPU_BATCH, Engine, build
from tasks.core.extraction import Batch
from tasks.core.media import ImageSpec, pixels
from tasks.core.networks import freeze, load_network
from tasks.core.taps import Tap

SPEC = ImageSpec(resize=24, crop=20, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))
BATCH = CPU_BATCH["channels_last"]
TAPS = (Tap("0", "none"), Tap("2", "mean+std"), Tap("6", "mean"))

Sample = tuple[str, Path]


def draw(folder: Path, number: int) -> Sample:
    rng = np.random.default_rng(number)
    path = folder / f"{number}.png"
    height, width = rng.integers(20, 60, 2)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return digest_bytes(path.read_bytes()), path


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("pictures")
    return [draw(folder, number) for number in range(37)]


def small_network() -> nn.Module:
    """Convolutions, plain and by channel, with batch norm that has seen other data."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2),
        nn.BatchNorm2d(24),
        nn.Conv2d(24, 24, 3, groups=24, bias=False),
        nn.BatchNorm2d(24),
        nn.SiLU(),
        nn.Conv2d(24, 40, 1),
        nn.BatchNorm2d(40),
        nn.AdaptiveAvgPool2d(1),
    )
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, 20, 20))
    return freeze(network)


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    return Prefix(small_network(), TAPS)


def ready(prefix: Prefix, spec: ImageSpec = SPEC) -> Engine:
    return build("channels_last", prefix, spec, Path("unused"))


def run(prefix: Prefix, samples: Sequence[Sample], spec: ImageSpec = SPEC) -> list[Batch]:
    return list(run_prefix(ready(prefix, spec), samples, spec))


def rows_by_digest(batches: Sequence[Batch]) -> dict[str, list[bytes]]:
    return {
        digest: [block[place].tobytes() for block in batch.rows]
        for batch in batches
        for place, digest in enumerate(batch.digests)
    }


def test_rows_are_the_networks_answers_to_each_picture_by_itself(prefix, samples):
    batches = run(prefix, samples)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (SPEC.mean, SPEC.std))
    for tap, block in enumerate(zip(*(batch.rows for batch in batches), strict=True)):
        rows = np.concatenate(block)
        assert rows.dtype == np.float32
        for row, (_, path) in zip(rows, samples, strict=True):
            x = (torch.from_numpy(pixels(path.read_bytes(), SPEC)).float() - mean) / std
            expected = prefix(x[None])[tap][0]
            np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_samples_come_out_in_order_each_once(prefix, samples):
    shuffled = random.Random(1).sample(samples, len(samples))  # noqa: S311 - an order, no secret
    batches = run(prefix, shuffled)
    assert [digest for batch in batches for digest in batch.digests] == [digest for digest, _ in shuffled]
    assert [len(batch.digests) for batch in batches] == [BATCH, BATCH, 37 - 2 * BATCH]
    assert all(len(block) == len(batch.digests) for batch in batches for block in batch.rows)


def test_nothing_in_nothing_out(prefix):
    assert run(prefix, []) == []


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def _threads(request) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def subsets(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    shuffle = random.Random(0)  # noqa: S311 - an order, no secret
    for size in (1, 7, 16, 37, 1, 7, 16, 37):
        yield shuffle.sample(samples, size)


@pytest.mark.usefixtures("_threads")
def test_a_rows_bits_do_not_depend_on_which_or_how_many_samples_came_with_it(prefix, samples):
    whole = rows_by_digest(run(prefix, samples))
    assert len(set(map(tuple, whole.values()))) == 37
    for some in subsets(samples):
        for digest, rows in rows_by_digest(run(prefix, some)).items():
            assert rows == whole[digest]


def test_a_rows_bits_do_not_depend_on_its_company_in_the_bundled_backbone(samples):
    backbone = find_backbone("lite0", resize=48, crop=48)
    prefix = Prefix(load_network(backbone), [Tap("blocks.2", "mean+std"), Tap("bn2", "mean")])
    whole = rows_by_digest(run(prefix, samples[:20], backbone.preprocessing))
    for some in (samples[5:6], samples[13:3:-1]):
        for digest, rows in rows_by_digest(run(prefix, some, backbone.preprocessing)).items():
            assert rows == whole[digest]


def test_a_sample_that_fails_beside_it_does_not_change_a_row(prefix, samples, tmp_path):
    whole = rows_by_digest(run(prefix, samples[:20]))
    gone = [(digest, tmp_path / "gone") if n in (0, 7, 19) else (digest, path)
            for n, (digest, path) in enumerate(samples[:20])]  # fmt: skip
    found = run(prefix, gone)
    assert {digest for batch in found for digest in batch.failed} == {samples[n][0] for n in (0, 7, 19)}
    kept = rows_by_digest(found)
    assert kept == {digest: rows for digest, rows in whole.items() if digest in kept}
    assert len(kept) == 17


def test_buffers_stay_byte_identical_after_many_batches(samples):
    network = small_network()
    before = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    prefix = Prefix(network, TAPS)
    for _ in range(3):
        run(prefix, samples)
    assert {
        name: tensor.contiguous().numpy().tobytes() for name, tensor in network.state_dict().items()
    } == before


# Files that cannot be read now


def test_bad_files_are_told_and_the_others_go_on(prefix, samples, tmp_path):
    changed, cut = tmp_path / "changed.png", tmp_path / "cut.png"
    changed.write_bytes(samples[1][1].read_bytes())
    cut.write_bytes(samples[2][1].read_bytes()[:-200])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    bad = {
        "0" * 40: (tmp_path / "missing.png", "cannot be read"),
        "1" * 40: (tmp_path, "cannot be read"),
        "2" * 40: (changed, "changed"),
        digest_bytes(cut.read_bytes()): (cut, "decoded"),
        digest_bytes(text.read_bytes()): (text, "not a picture"),
    }
    mixed = [samples[0], *((digest, path) for digest, (path, _) in bad.items()), *samples[3:30]]
    batches = run(prefix, mixed)
    failed = {digest: reason for batch in batches for digest, reason in batch.failed.items()}
    assert failed.keys() == bad.keys()
    for digest, (_, reason) in bad.items():
        assert reason in failed[digest]
    expected = [digest for digest, _ in [samples[0], *samples[3:30]]]
    assert [digest for batch in batches for digest in batch.digests] == expected


def test_a_batch_of_bad_files_alone_is_passed_over(prefix, samples, tmp_path):
    gone = [(f"{number:040}", tmp_path / "gone") for number in range(BATCH)]
    first, second = run(prefix, gone + samples[:2])
    assert (first.digests, first.rows, len(first.failed)) == ([], [], BATCH)
    assert second.digests == [digest for digest, _ in samples[:2]]


def test_a_failure_is_told_in_the_batch_to_which_the_sample_belongs(prefix, samples, tmp_path):
    mixed = [*samples[:20], ("0" * 40, tmp_path / "gone")]
    assert [list(batch.failed) for batch in run(prefix, mixed)] == [[], ["0" * 40]]


# Decoding ahead


def test_only_a_few_batches_are_decoded_ahead(prefix, samples, monkeypatch):
    read: list[str] = []
    original = engine._read
    monkeypatch.setattr(engine, "_read", lambda digest, *rest: read.append(digest) or original(digest, *rest))
    many = [samples[number % 37] for number in range(20 * BATCH)]
    passes = run_prefix(ready(prefix), many, SPEC)
    next(passes)
    assert len(read) <= (2 + AHEAD) * BATCH  # two went into the network
    passes.close()
    assert len(read) <= (2 + AHEAD) * BATCH
    assert not [each for each in threading.enumerate() if each.name.startswith(("decode", "forward"))]


def test_an_error_in_the_network_ends_the_run_and_leaves_no_thread(samples):
    prefix = Prefix(freeze(nn.Sequential(nn.Conv2d(4, 1, 1))), [Tap("0")])
    with pytest.raises(RuntimeError, match="channels"):
        run(prefix, samples)
    assert not [each for each in threading.enumerate() if each.name.startswith(("decode", "forward"))]
