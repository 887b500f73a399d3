"""How long layers take for a sample on this machine, by a trial of a moment."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from tasks.core.cuts import Prefix
from tasks.core.engine import probe_input
from tasks.core.engines import with_channels_last
from tasks.core.finetune import Course, Diverged, Samples, Training
from tasks.core.hyper import Network
from tasks.core.layers import part
from tasks.core.networks import build
from tasks.core.taps import parse_tap
from tasks.core.truth import Known

if TYPE_CHECKING:
    from tasks.core.cells import Source

TRIALS = 3
"""The first makes ready and does not count."""
FROZEN_BATCH = 16


def seconds_a_sample(source: "Source", network: Network) -> float:
    """Time a step of training: seconds to look at a sample, and to learn from it."""
    classes = len(source.classes)
    layers = part(build(source.backbone, classes=classes, seed=0), network.cut, classes=classes, blank=False)
    rows = np.arange(min(network.batch, len(source.labels)))
    weights = np.ones(len(source.labels))
    samples = Samples(source.looks, rows, Known(source.labels, weights, np.arange(len(weights)), classes))
    course = Course(1e-6, epochs=1, batch=len(rows), batch_norm=network.batch_norm)
    return float(np.median([_seconds(Training(layers, samples, course)) for _ in range(TRIALS)][1:])) / len(
        rows
    )


def _seconds(training: Training) -> float:
    started = time.perf_counter()
    with suppress(Diverged):  # random weights may give no number; that takes as long
        training.run()
    return time.perf_counter() - started


def frozen_seconds_a_sample(source: "Source") -> float:
    """Time the frozen layers before the taps, as torch runs them where layers behind them are trained."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = source.backbone.preprocessing
    prefix = Prefix(source.network, [parse_tap(tap) for tap in source.inputs.taps])
    module = with_channels_last(prefix, spec, device)
    x = torch.from_numpy(probe_input(spec, FROZEN_BATCH)).to(device)
    seconds = []
    with torch.inference_mode():
        for _ in range(TRIALS):
            started = time.perf_counter()
            [out.cpu() for out in module(x)]
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:])) / FROZEN_BATCH
