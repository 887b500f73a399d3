"""The engine for a GPU: half precision where it is exact enough, the batch found by itself."""

import time
from collections.abc import Callable

import numpy as np
import torch

from tasks.core.choice import relative_error
from tasks.core.cuts import Prefix
from tasks.core.engines import Engine, Forward, torch_forward, with_channels_last
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec

BATCH, MOST_BATCH = 32, 512
WORTH_DOUBLING = 1.05
"""A larger batch is taken if it is faster by this factor."""

MOST_ERROR = 1e-2
"""Relative error against float32, above which a half format is not used; float16 itself rounds by 5e-4."""


def cuda_engine(
    prefix: Prefix, spec: ImageSpec, probe: Callable[[int], np.ndarray], *, half: bool = True
) -> Engine:
    """Move a prefix to the GPU.

    Args:
        prefix: frozen, in eval mode.
        spec: the backbone's preprocessing.
        probe: n -> (n, 3, crop, crop) uint8, to check and time with.
        half: whether float16 or bfloat16 products may be used.
    """
    device, x = torch.device("cuda"), probe(BATCH)
    torch.backends.cudnn.allow_tf32 = False  # or "float32" would not be
    module = with_channels_last(prefix, spec, device)
    kinds = {"float32": None} | ({"float16": torch.float16, "bfloat16": torch.bfloat16} if half else {})
    forms = {name: torch_forward(module, device, kind) for name, kind in kinds.items()}
    precision = best_precision({name: halving(form) for name, form in forms.items()}, x)
    batch = best_batch(forms[precision], x)
    name = torch.cuda.get_device_name(device)
    return Engine("cuda", batch, halving(forms[precision]), f"{name}, {precision}")


def best_precision(forms: dict[str, Forward], x: np.ndarray) -> str:
    """Choose the first half format that stays close to float32, else float32.

    Args:
        forms: "float32" and whatever else there is -> the forward pass in it.
        x: an input of the usual kind.
    """
    reference = forms["float32"](x)
    for name, forward in forms.items():
        if name != "float32" and relative_error(forward(x), reference) <= MOST_ERROR:  # NaN is not
            return name
    return "float32"


def best_batch(forward: Forward, x: np.ndarray) -> int:
    """Double the batch while that makes it faster and the memory holds it.

    Args:
        forward: fails with torch.OutOfMemoryError when a batch does not fit.
        x: an input of the usual kind, repeated as needed.
    """
    batch, rate = BATCH, 0.0
    while True:
        try:
            found = _rate(forward, np.resize(x, (batch, *x.shape[1:])))
        except torch.OutOfMemoryError:
            return max(1, batch // 2)
        if found < WORTH_DOUBLING * rate:
            return batch // 2
        if batch == MOST_BATCH:
            return batch
        batch, rate = 2 * batch, found


def halving(forward: Forward) -> Forward:
    """Run a batch in halves when it does not fit any more, as when others use the GPU's memory.

    Raises:
        RequestError: if one sample alone does not fit.
    """

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            return forward(x)
        except torch.OutOfMemoryError:
            if len(x) == 1:
                raise RequestError(
                    "one picture does not fit in the GPU's memory; free some of it, or pin "
                    'engine = "channels_last", which runs on the CPU'
                ) from None
        torch.cuda.empty_cache()  # only here has the failed pass let go of its memory
        halves = [run(x[: len(x) // 2]), run(x[len(x) // 2 :])]
        return [np.concatenate(rows) for rows in zip(*halves, strict=True)]

    return run


def _rate(forward: Forward, x: np.ndarray) -> float:
    forward(x)
    started = time.perf_counter()
    for _ in range(3):
        forward(x)
    return 3 * len(x) / (time.perf_counter() - started)
