"""An epoch of layers from kept activations against an epoch of the whole network with its prefix frozen.

make bench-depth. Of the floating-point operations that the frozen prefix takes in an epoch, how much of their
share in time is spared? Both sides take the same steps (`Training`) on the same samples in one run, in turn; the
whole network has its pictures decoded in memory, so that nothing but the prefix is spared. Operations of the
forward pass are counted as `headstart cuts` does; the backward pass of layers that are trained takes twice as many.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone, find_backbone
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_value
from tasks.core.engine import probe_input
from tasks.core.finetune import Course, Samples, Training, on_device
from tasks.core.graph import describe_cuts, trace
from tasks.core.layers import part
from tasks.core.looks import Kept, Looks
from tasks.core.networks import load_network, outline
from tasks.core.store import as_stored, holdings, set_folder, write_shard
from tasks.core.taps import Tap
from tasks.core.truth import Known

CUTS = ("blocks.2", "blocks.3", "blocks.5")
SAMPLES, BATCH, TURNS = 128, 32, 5
COURSE = Course(1e-4, epochs=1, batch=BATCH)


@dataclass(frozen=True)
class Pictures:
    """Preprocessed pictures in memory, (N, 3, H, W)."""

    seen: Tensor
    views: tuple[str, ...] = ("centre",)

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        return self.seen[rows]

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        return self.seen[rows]


class Whole(nn.Module):
    """The frozen prefix, in eval mode and without gradients, and the layers behind it."""

    def __init__(self, prefix: Prefix, layers: nn.Module) -> None:
        super().__init__()
        self.frozen, self.layers = [prefix], layers  # a list: no parameters of this module

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            [activations] = self.frozen[0](x)
        return self.layers(activations)


def main() -> None:
    backbone = find_backbone("lite0")
    network, spec = load_network(backbone), backbone.preprocessing
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    pictures = Pictures((torch.from_numpy(probe_input(spec, SAMPLES)).float() - mean) / std)
    print(
        f"lite0 at {spec.crop} x {spec.crop}, {SAMPLES} samples, batches of {BATCH}, medians of {TURNS} epochs, ",
        end="",
    )
    print(f"{torch.get_num_threads()} threads\n")
    print("cut        s an epoch: whole  from kept  times as fast  FLOPs spared  time spared  of them")
    saved = operations_saved(backbone)
    with tempfile.TemporaryDirectory() as folder:
        for cut in CUTS:
            print(compare(network, cut, saved[cut], pictures, Artifacts(Path(folder))), flush=True)


def compare(network: nn.Module, cut: str, saved: float, pictures: Pictures, artifacts: Artifacts) -> str:
    prefix = Prefix(network, [Tap(cut, "none")]).to(memory_format=torch.channels_last)
    kept = keep(prefix, cut, pictures, artifacts)
    sides: dict[str, tuple[nn.Module, Looks]] = {
        "whole": (Whole(prefix, part(network, cut, classes=2, blank=True)), pictures),
        "kept": (part(network, cut, classes=2, blank=True), kept),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 1):
        for name, side in sides.items():
            took = epoch(*side)
            if turn:  # the first makes ready
                seconds[name].append(took)
    whole, ours = (float(np.median(seconds[name])) for name in ("whole", "kept"))
    spared = 1 - ours / whole
    return (
        f"{cut:<10} {whole:17.2f} {ours:10.2f} {whole / ours:14.2f} {100 * saved:11.1f} % {100 * spared:10.1f} % "
        f"{spared / saved:8.2f}"
    )


def keep(prefix: Prefix, cut: str, pictures: Pictures, artifacts: Artifacts) -> Kept:
    """Store the activations at a cut as a run does."""
    digests = [digest_value(number) for number in range(SAMPLES)]
    place = set_folder(artifacts.features, {"cut": cut})
    with torch.inference_mode():
        for start in range(0, SAMPLES, BATCH):
            [rows] = prefix(on_device(pictures.seen[start : start + BATCH], torch.device("cpu")))
            block = as_stored(rows.contiguous().numpy(), "float16")
            write_shard(place, digests[start : start + BATCH], block, {})
    return Kept({"centre": holdings(place, artifacts.seen("shard"))}, np.array(digests))


def samples(looks: Looks, count: int = SAMPLES) -> Samples:
    every = np.arange(SAMPLES)
    return Samples(looks, np.arange(count), Known(every % 2, np.ones(SAMPLES), every, 2))


def epoch(layers: nn.Module, looks: Looks) -> float:
    training = Training(layers, samples(looks), COURSE)
    started = time.perf_counter()
    training.run()
    return time.perf_counter() - started


def operations_saved(backbone: Backbone) -> dict[str, float]:
    """Share of an epoch's operations that the frozen prefix takes, by cut."""
    cuts = describe_cuts(trace(outline(backbone)), backbone.preprocessing.crop)
    return {cut.name: cut.flops / (cut.flops + 3 * (1 - cut.flops)) for cut in cuts}


if __name__ == "__main__":
    main()
