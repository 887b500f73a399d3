"""Pictures for every test that needs some: made here, in a second, from seeds."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' problems are small: more threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # only wait for each other

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

Painter = Callable[[Path, int, float], None]


def paint(path: Path, seed: int, angle: float) -> None:
    """Draw one noisy picture of stripes at an angle; the angle is what a class can be told by."""
    y, x = np.mgrid[0:48, 0:48]
    rng = np.random.default_rng(seed)
    stripes = np.sin(0.6 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
    noisy = 128 + 60 * stripes[..., None] + rng.normal(0, 25, (48, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def painter() -> Painter:
    """Draw pictures: `painter(path, seed, angle)`."""
    return paint


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes with twelve pictures each: upright and lying stripes."""
    folder = tmp_path / "stripes"
    for number in range(12):
        paint(folder / "upright" / f"{number}.png", number, 0.0)
        paint(folder / "lying" / f"{number}.png", 100 + number, 1.57)
    return folder
