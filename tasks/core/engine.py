"""Samples through a frozen prefix: decoding overlaps the forward pass, each row's bits are its own.

Every pass has the same batch size; a batch that is not full is padded. Kernels may choose another order
of summation for another batch size, and a sample's row must not depend on how many came with it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from itertools import islice
from os import cpu_count
from pathlib import Path

import numpy as np
import torch

from tasks.core.choice import Memory, attempt, choose
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.engines import CPU_ENGINES, Engine, Unavailable, build, torch_forward
from tasks.core.errors import RequestError, check_reachable
from tasks.core.extraction import Batch
from tasks.core.gpu import cuda_engine
from tasks.core.media import ImageSpec, MediaError, pixels
from tasks.core.recipes import AUTO

AHEAD = 3
"""Batches that are decoded before their turn."""

ACTIVATIONS = 16
"""Samples of a batch that starts from stored activations."""

Sample = tuple[str, Path]
"""A sample's digest and its file."""


def open_engine(
    prefix: Prefix, spec: ImageSpec, cache: Path, samples: int, *, pinned: str = AUTO, begun: str = ""
) -> Engine:
    """Make a prefix ready in the way that is done first on this machine.

    Args:
        prefix: frozen, in eval mode.
        spec: the backbone's preprocessing.
        cache: a folder of this prefix's own, for measurements and converted networks.
        samples: how many are to be run.
        pinned: an engine's name, or "auto".
        begun: the engine that made the rows already stored, or "".

    Raises:
        RequestError: if the pinned engine cannot be had here.
    """
    probe = partial(probe_input, spec)
    if torch.cuda.is_available() and pinned in (AUTO, "eager"):
        return cuda_engine(prefix, spec, probe, half=pinned == AUTO)
    if pinned == AUTO:
        make = partial(build, prefix=prefix, spec=spec, cache=cache)
        return choose(make, probe, CPU_ENGINES, samples, Memory(cache / "measured.json"), begun)
    try:
        return attempt(partial(build, pinned, prefix, spec, cache))
    except Unavailable as reason:
        raise RequestError(f'engine = "{pinned}": {reason}; choose another, or "auto"') from None


def probe_input(spec: ImageSpec, n: int) -> np.ndarray:
    """Draw pictures of soft patches with some noise; returns (n, 3, crop, crop) uint8, the same each time."""
    rng = np.random.default_rng(0)
    patch = -(-spec.crop // 8)
    soft = (
        rng.integers(20, 236, (n, 3, 8, 8)).repeat(patch, 2).repeat(patch, 3)[..., : spec.crop, : spec.crop]
    )
    noisy: np.ndarray = soft + rng.integers(-20, 20, soft.shape)
    return noisy.astype(np.uint8)


def run_prefix(
    engine: Engine, samples: Iterable[Sample], spec: ImageSpec, view: str = "centre"
) -> Iterator[Batch]:
    """Run samples through a prefix.

    A sample is read again here, so its bytes are held against its digest: a file that changed
    meanwhile is told as failed, never stored under the old name. The next batch is on its way through
    the network while the caller deals with the last one.

    Args:
        engine: the prefix made ready.
        samples: (digest, file) pairs, taken as they are needed.
        spec: the backbone's preprocessing.
        view: how to look at each.

    Yields:
        One `Batch` for at most `engine.batch` samples, in order.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="forward") as runner:
        last: Future[Batch] | None = None
        for group, decoded in _decode_ahead(samples, spec, view, engine.batch):
            turn = runner.submit(_forward, engine, group, decoded)
            if last is not None:
                yield last.result()
            last = turn
        if last is not None:
            yield last.result()


def run_activations(
    prefix: Prefix, read: Callable[[Sequence[str]], np.ndarray], digests: Iterable[str]
) -> Iterator[Batch]:
    """Run stored activations through the part of a network that comes after them.

    Args:
        prefix: starts at the cut where the activations were kept; frozen, in eval mode.
        read: digests -> (n, ...) their activations.
        digests: of the samples, taken as they are needed.

    Yields:
        One `Batch` for at most `ACTIVATIONS` samples, in order.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forward = torch_forward(deepcopy(prefix).to(device), device)  # `to` would move the network's own weights
    source = iter(digests)
    while names := list(islice(source, ACTIVATIONS)):
        x = _padded(list(read(names).astype(np.float32)), ACTIVATIONS)
        yield Batch(names, [out[: len(names)] for out in forward(x)], {})


def _forward(engine: Engine, group: list[Sample], decoded: list[np.ndarray | str]) -> Batch:
    failed = {digest: item for (digest, _), item in zip(group, decoded, strict=True) if isinstance(item, str)}
    inputs = [item for item in decoded if not isinstance(item, str)]
    names = [digest for digest, _ in group if digest not in failed]
    if not inputs:
        return Batch([], [], failed)
    rows = [out[: len(inputs)] for out in engine.forward(_padded(inputs, engine.batch))]
    return Batch(names, rows, failed)


def _padded(inputs: list[np.ndarray], batch: int) -> np.ndarray:
    """Stack to a full batch, the first input repeated: (batch, 3, crop, crop)."""
    return np.stack(inputs + [inputs[0]] * (batch - len(inputs)))


def _decode_ahead(
    samples: Iterable[Sample], spec: ImageSpec, view: str, batch: int
) -> Iterator[tuple[list[Sample], list[np.ndarray | str]]]:
    """Decode in threads, a few batches ahead; the decoders release the interpreter's lock."""
    source = iter(samples)
    waiting: deque[tuple[list[Sample], list[Future[np.ndarray | str]]]] = deque()
    with ThreadPoolExecutor(cpu_count() or 2, thread_name_prefix="decode") as pool:
        while True:
            while len(waiting) < AHEAD and (group := list(islice(source, batch))):
                waiting.append((group, [pool.submit(_read, *sample, spec, view) for sample in group]))
            if not waiting:
                return
            group, futures = waiting.popleft()
            yield group, [future.result() for future in futures]


def _read(digest: str, path: Path, spec: ImageSpec, view: str) -> np.ndarray | str:
    """Return pixels, or the reason why there are none."""
    try:
        data = path.read_bytes()
        if digest_bytes(data) != digest:
            return "changed while the run was reading it"
        return pixels(data, spec, view, digest)
    except MediaError as error:
        return str(error)
    except OSError as error:
        check_reachable(path, error)
        return f"cannot be read ({error.strerror or error})"
