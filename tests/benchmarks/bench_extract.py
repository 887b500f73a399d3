"""How fast features are extracted: `make bench-extract`.

For each network, in turns and as medians: the chosen engine's forward pass alone; Headstart end to end (files
decoded, claimed, run, stored as shards and shown in features.h5), its start-up not counted; the loop that
a user would write (Pillow, torchvision's transforms, DataLoader with two workers, eager, no_grad); and
thingsvision, if the Python named by THINGSVISION_PYTHON has it. Pictures are JPEGs of 500 x 375.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone, find_backbone
from tasks.core.digest import digest_bytes
from tasks.core.engine import open_engine, probe_input, run_prefix
from tasks.core.engines import Engine
from tasks.core.machine import machine
from tasks.core.media import ImageSpec
from tasks.core.passes import Passes
from tasks.core.recipes import Recipe
from tasks.core.taps import Tap, parse_tap

ROUNDS = 3
PICTURES = {"lite0": 1500, "resnet50": 400}
PLAIN_PICTURES = {"lite0": 300, "resnet50": 100}
GOALS = {"lite0": (0.9, 4.0), "resnet50": (0.9, 2.8)}


def draw(folder: Path, number: int) -> dict[str, Path]:
    """Cut so many different pictures from twenty photographs; each is known by its digest."""
    photos = [
        Image.open(path).convert("RGB").resize((900, 675))
        for path in sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*"))
    ]
    rng = np.random.default_rng(0)
    places = {}
    for turn in range(number):
        left, top = int(rng.integers(0, 400)), int(rng.integers(0, 300))
        picture, buffer = photos[turn % len(photos)].crop((left, top, left + 500, top + 375)), io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        path = folder / f"{turn}.jpg"
        path.write_bytes(buffer.getvalue())
        places[digest_bytes(buffer.getvalue())] = path
    return places


def backbone_of(name: str, folder: Path) -> Backbone:
    """Lite0 has its weights; resnet50 gets random ones, which run as fast."""
    if name == "lite0":
        return find_backbone(name)
    weights = folder / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), weights)
    return find_backbone(str(weights), architecture="resnet50")


class Timed(Passes):
    """Passes that tell how long the extraction itself took, start-up not counted."""

    seconds = 0.0

    def _run(self, *given: Any) -> None:
        started = time.perf_counter()
        super()._run(*given)
        self.seconds = time.perf_counter() - started


def end_to_end(backbone: Backbone, places: dict[str, Path], tap: Tap, engines: Path) -> tuple[float, float]:
    """Extract into a fresh folder; return pictures a second, and the seconds of start-up."""
    with tempfile.TemporaryDirectory() as root:
        artifacts = Artifacts(Path(root))
        artifacts.engines.symlink_to(engines)
        recipe, files = Recipe({"centre": (tap,)}, "float16"), {name: str(at) for name, at in places.items()}
        passes = Timed(backbone, recipe, artifacts, files)
        started = time.perf_counter()
        passes.fill("centre")
        whole = time.perf_counter() - started
        assert len(passes.ran) == len(places)
        return len(places) / passes.seconds, whole - passes.seconds


class Pictures(Dataset[torch.Tensor]):
    """What a user would write."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[place]).convert("RGB"))


def plain_network(name: str) -> nn.Module:
    """Build the network without its classifier, as its library does."""
    if name == "lite0":
        lite: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
        return lite.eval()
    network = torchvision.models.resnet50()
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network.eval()


def plain_loop(network: nn.Module, paths: list[Path]) -> float:
    """Run the loop; return pictures a second."""
    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = DataLoader(Pictures(paths, transform), batch_size=32, num_workers=2)
    started = time.perf_counter()
    with torch.no_grad():
        rows = np.concatenate([network(x).numpy() for x in loader])
    assert len(rows) == len(paths)
    return len(paths) / (time.perf_counter() - started)


def pure_forward(forward: Callable[[np.ndarray], object], x: np.ndarray, seconds: float = 4.0) -> float:
    """Run ready batches for a while; return pictures a second."""
    forward(x)
    started, turns = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        forward(x)
        turns += 1
    return turns * len(x) / (time.perf_counter() - started)


def decoding_alone(places: dict[str, Path], spec: ImageSpec) -> float:
    """Read, check and decode as the engine does, with no network behind; return pictures a second."""
    none = Engine("none", 16, lambda x: [x[:, 0, 0, :1].astype(np.float32)])
    started = time.perf_counter()
    done = sum(len(batch.digests) for batch in run_prefix(none, places.items(), spec))
    return done / (time.perf_counter() - started)


def thingsvision_loop(python: str, name: str, folder: Path, most: int) -> float | None:
    """Run thingsvision in its own Python; None if it has none."""
    source, model, module = {
        "lite0": ("timm", "tf_efficientnet_lite0", "global_pool"),
        "resnet50": ("torchvision", "resnet50", "avgpool"),
    }[name]
    program = Path(__file__).with_name("thingsvision_loop.py")
    told = subprocess.run(
        [python, str(program), source, model, module, str(folder), str(most)], capture_output=True, text=True
    )
    if told.returncode:
        print(f"thingsvision does not run: {told.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(told.stdout.split()[-1])


def bench(name: str, places: dict[str, Path], scratch: Path) -> None:
    """Measure one network, all ways in turn, and print its rows."""
    from tasks.core.cuts import Prefix
    from tasks.core.networks import load_network

    backbone = backbone_of(name, scratch)
    tap = Tap(backbone.last, "mean") if backbone.last != "last" else parse_tap("last:mean")
    engines, paths = scratch / f"engines-{name}", list(places.values())
    engines.mkdir()
    end_to_end(backbone, places, tap, engines)  # chooses the engine, and keeps what it converts
    prefix = Prefix(load_network(backbone), [tap])
    [kept] = engines.iterdir()
    engine = open_engine(prefix, backbone.preprocessing, kept, len(places))
    x, network = probe_input(backbone.preprocessing, engine.batch), plain_network(name)
    python = os.environ.get("THINGSVISION_PYTHON", "")
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        rate, startup = end_to_end(backbone, places, tap, engines)
        turn = {
            "end to end": rate,
            "start-up, s": startup,
            "forward alone": pure_forward(engine.forward, x),
            "decoding alone": decoding_alone(places, backbone.preprocessing),
            "plain loop": plain_loop(network, paths[: PLAIN_PICTURES[name]]),
        }
        if python and (other := thingsvision_loop(python, name, paths[0].parent, PLAIN_PICTURES[name])):
            turn["thingsvision"] = other
        for key, value in turn.items():
            found.setdefault(key, []).append(value)
    report(name, engine.name, found)


def report(name: str, engine: str, found: dict[str, list[float]]) -> None:
    """Print the medians, and the ratios turn by turn."""
    print(f"\n{name}, engine {engine}, images a second (medians of {ROUNDS}, least to most)")
    for key, values in found.items():
        print(f"  {key:<16}{statistics.median(values):9.1f}   {min(values):.1f} to {max(values):.1f}")
    forward, plain = GOALS[name]
    for other, goal in (("forward alone", forward), ("plain loop", plain), ("thingsvision", None)):
        if other in found:
            ratios = [ours / its for ours, its in zip(found["end to end"], found[other], strict=False)]
            asked = f"   (goal: at least {goal})" if goal else ""
            print(f"  end to end / {other:<16}{statistics.median(ratios):6.2f}{asked}")


def main() -> None:
    """Measure the networks named in the command line, or both."""
    print(f"machine: {', '.join(map(str, machine()))}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in sys.argv[1:] or PICTURES:
            pictures = scratch / f"pictures-{name}"
            pictures.mkdir()
            bench(name, draw(pictures, PICTURES[name]), scratch)


if __name__ == "__main__":
    main()
