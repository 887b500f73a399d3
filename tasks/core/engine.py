"""Samples through a frozen prefix: decoding overlaps the forward pass, each row's bits are its own.

Every pass has the same batch size; the last one is padded. Kernels may choose another order of
summation for another batch size, and a sample's row must not depend on how many came with it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.media import ImageSpec, MediaError, pixels

BATCH = 16
AHEAD = 3
"""Batches that are decoded before their turn."""


@dataclass(frozen=True)
class Batch:
    """What one pass left behind.

    Attributes:
        digests: (n,) the samples that went through.
        rows: one (n, ...) float32 for each tap.
        failed: sample digest -> why it could not be read now.
    """

    digests: list[str]
    rows: list[np.ndarray]
    failed: dict[str, str]


def best_device() -> torch.device:
    """Choose the GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_prefix(
    prefix: Prefix, samples: Sequence[tuple[str, Path]], spec: ImageSpec, device: torch.device
) -> Iterator[Batch]:
    """Run samples through a prefix.

    A sample is read again here, so its bytes are held against its digest: a file that changed
    meanwhile is told as failed, never stored under the old name.

    Args:
        prefix: in eval mode.
        samples: (digest, file) pairs.
        spec: the backbone's preprocessing.
        device: where to run.

    Yields:
        One `Batch` for at most `BATCH` samples, in order.
    """
    prefix = prefix.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
    for group, decoded in _decode_ahead(samples, spec):
        failed = {
            digest: item for (digest, _), item in zip(group, decoded, strict=True) if isinstance(item, str)
        }
        inputs = [item for item in decoded if not isinstance(item, str)]
        names = [digest for digest, _ in group if digest not in failed]
        if not inputs:
            yield Batch([], [], failed)
            continue
        x = torch.from_numpy(_padded(inputs)).to(device)  # (BATCH, 3, crop, crop) uint8
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            rows = [_to_numpy(out[: len(inputs)]) for out in prefix(x)]
        yield Batch(names, rows, failed)


def _padded(inputs: list[np.ndarray]) -> np.ndarray:
    """Stack to a full batch, the first input repeated."""
    return np.stack(inputs + [inputs[0]] * (BATCH - len(inputs)))


def _to_numpy(out: Tensor) -> np.ndarray:
    array: np.ndarray = out.float().cpu().contiguous().numpy()
    return array


def _decode_ahead(
    samples: Sequence[tuple[str, Path]], spec: ImageSpec
) -> Iterator[tuple[Sequence[tuple[str, Path]], list[np.ndarray | str]]]:
    """Decode in threads, a few batches ahead; the decoders release the interpreter's lock."""
    groups = iter([samples[start : start + BATCH] for start in range(0, len(samples), BATCH)])
    read: Callable[[tuple[str, Path]], np.ndarray | str] = lambda sample: _read(*sample, spec)  # noqa: E731
    with ThreadPoolExecutor(cpu_count() or 2, thread_name_prefix="decode") as pool:
        submit: Callable[[Sequence[tuple[str, Path]]], list[Future[np.ndarray | str]]]
        submit = lambda group: [pool.submit(read, sample) for sample in group]  # noqa: E731
        waiting = [(group, submit(group)) for group in islice(groups, AHEAD)]
        while waiting:
            group, futures = waiting.pop(0)
            decoded = [future.result() for future in futures]
            waiting += [(ahead, submit(ahead)) for ahead in islice(groups, 1)]
            yield group, decoded


def _read(digest: str, path: Path, spec: ImageSpec) -> np.ndarray | str:
    """Return pixels, or the reason why there are none."""
    try:
        data = path.read_bytes()
        if digest_bytes(data) != digest:
            return "changed while the run was reading it"
        return pixels(data, spec)
    except MediaError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
