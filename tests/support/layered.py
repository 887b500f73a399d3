"""Tiny networks with weights of their own, and pictures and activations that layers of them are trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone, find_backbone
from tasks.core.cells import Source
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.heads import Inputs
from tasks.core.media import pixels
from tasks.core.networks import load_network
from tasks.core.splits import SplitSpec
from tasks.core.store import set_folder, write_shard
from tasks.core.taps import parse_tap, spell
from tasks.core.trials import Part

SIZE = 32
CUTS = {"test_resnet": "layer2", "test_efficientnet": "blocks.2", "test_vit": "blocks.2"}
"""Of timm's smallest: one with batch norm, one with timm's own batch norm, and a transformer."""


def cut_of(backbone: Backbone) -> str:
    """A cut in the middle of a tiny network."""
    return CUTS[backbone.architecture.removeprefix("timm:").partition(".")[0]]


@pytest.fixture(scope="module", autouse=True)
def on_the_processor() -> Iterator[None]:
    """Train where the same bits come out every time, GPU or not: `on_the_processor = layered.on_the_processor`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


class Given:
    """Looks that lie in memory: (V, N, ...)."""

    def __init__(self, looks: Tensor) -> None:
        self.looks = looks
        self.views = tuple(str(number) for number in range(len(looks)))

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        views = np.random.default_rng(seed).integers(0, len(self.looks), len(rows))
        return self.looks[views, rows]

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        return self.looks[int(view), rows]


class Killed(BaseException):
    """Stands for SIGKILL."""


def killed_after(samples: int) -> Callable[[int], None]:
    """An `advance` that dies when so many samples were learnt from."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if done >= samples:
            raise Killed

    return advance


def has_seen_something(network: nn.Module, size: int = SIZE) -> nn.Module:
    """Let batch norms see a few pictures; then the network is as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(8, 3, size, size, generator=generator) * 1.5 + 0.3)
    return network.eval().requires_grad_(False)


def tiny(name: str, *, seed: int = 0, classes: int = 5) -> nn.Module:
    """One of timm's smallest networks for small pictures, its weights made here."""
    options = {"img_size": SIZE} if "vit" in name else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return has_seen_something(timm.create_model(name, num_classes=classes, **options))


def checkpoint(folder: Path, name: str = "test_resnet", *, seed: int = 0) -> Backbone:
    """Save a tiny network, and find it as a user's own backbone."""
    file = folder / f"{name}-{seed}.pth"
    torch.save(tiny(name, seed=seed).state_dict(), file)
    return find_backbone(str(file), architecture=f"timm:{name}", resize=SIZE, crop=SIZE)


def painted(folder: Path, samples: int, classes: int = 2) -> pd.DataFrame:
    """Noisy pictures of a colour for each class, and the table of them; no two are the same."""
    rows = []
    for number in range(samples):
        rng = np.random.default_rng(number)
        colour = 70 + 90 * np.eye(3)[number % classes]
        noisy = colour + rng.normal(0, 45, (40, 36, 3))
        path = folder / f"{number}.png"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
        weight = float(rng.uniform(0.5, 1.5))
        rows.append((digest_bytes(path.read_bytes()), str(path), "rgb"[number % classes], weight))
    return pd.DataFrame(sorted(rows), columns=["digest", "path", "label", "weight"])


def preprocessed(backbone: Backbone, files: Sequence[str], view: str) -> Tensor:
    """(N, 3, H, W) by a plain loop."""
    spec = backbone.preprocessing
    mean, std = (np.array(each, dtype=np.float32).reshape(3, 1, 1) for each in (spec.mean, spec.std))
    looked = [(pixels(Path(file).read_bytes(), spec, view).astype(np.float32) - mean) / std for file in files]
    return torch.from_numpy(np.stack(looked))


def activations(backbone: Backbone, files: Sequence[str], tap: str, view: str) -> np.ndarray:
    """(N, ...) of a tap, by the network as it is."""
    [found] = Prefix(load_network(backbone), [parse_tap(tap)])(preprocessed(backbone, files, view))
    return found.numpy()


def kept(
    backbone: Backbone, table: pd.DataFrame, artifacts: Artifacts, tap: str, views: Sequence[str]
) -> Mapping[str, str]:
    """Store what a tap gives of each view, in two shards out of order; a tap of a view -> its feature set."""
    known = {}
    for number, view in enumerate(views):
        rows = activations(backbone, table.path.tolist(), tap, view)
        folder = set_folder(artifacts.features, {"tap": tap, "view": view, "backbone": backbone.name})
        order = np.random.default_rng(number).permutation(len(table))
        for some in np.array_split(order, 2):
            write_shard(folder, table.digest[some].tolist(), rows[some], {})
        known[spell(parse_tap(tap), view)] = folder.name
    return known


def source_of(
    backbone: Backbone,
    table: pd.DataFrame,
    artifacts: Artifacts,
    tap: str | None = None,
    views: Sequence[str] = ("centre",),
) -> Source:
    """What layers or heads are trained on: activations at a tap, or the pictures themselves."""
    inputs = Inputs(backbone.name, () if tap is None else (tap,), tuple(views))
    known = {} if tap is None else kept(backbone, table, artifacts, tap, views)
    return Source(inputs, backbone, known, table, artifacts)


def part_of(table: pd.DataFrame, *, tested: int = 4, seed: int = 0, share: np.ndarray | None = None) -> Part:
    """A table cut once, every sample a group of its own: each so-manieth is tested."""
    test = np.arange(len(table)) % tested == 0
    return Part(SplitSpec("every so many"), seed, table.digest.to_numpy(), test, share)
