"""Extract so many tiny pictures, each of its own bytes, by a tiny network; print the peak memory in MB.

Run in a process of its own by tests/core/test_memory.py: `many_samples.py NUMBER FOLDER`.
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tasks.core.networks
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import find_backbone
from tasks.core.manifest import list_samples, locate
from tasks.core.networks import freeze
from tasks.core.passes import Passes
from tasks.core.recipes import Recipe
from tasks.core.samples import Columns, assemble, examine
from tasks.core.taps import Tap


def draw(folder: Path, number: int) -> None:
    """Write 4x4 PPM pictures, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for turn in range(number):
        place = folder / f"class-{turn % 2}" / f"{turn // 1000}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{turn}.ppm").write_bytes(b"P6 4 4 255\n" + rng.bytes(48))


def main() -> None:
    """Do what the samples stage and the features stage do."""
    number, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    draw(folder / "pictures", number)
    tasks.core.networks.load_network = lambda backbone: freeze(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    )
    artifacts = Artifacts(folder / "artifacts")
    frame = list_samples(folder / "pictures", [])
    places, problems = locate(frame["path"].tolist(), folder / "pictures")
    examined, _ = examine(places, problems, artifacts)
    table, quarantine = assemble(frame, places, examined, Columns("class"))
    assert (len(table), len(quarantine)) == (number, 0)
    backbone = find_backbone("lite0", resize=4, crop=4)
    recipe = Recipe({"centre": (Tap("2", "mean"),)}, "float16", "channels_last")
    by_digest = dict(zip(table["digest"], table["path"], strict=True))
    passes = Passes(backbone, recipe, artifacts, by_digest)
    [filled] = passes.fill("centre")
    assert len(filled.held.rows) == number
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
