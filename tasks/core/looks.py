"""Samples as the input of layers that are trained: activations kept at a cut, or pictures looked at anew.

Which look is taken at a sample in which epoch is told by the seed alone, so that a run that was killed goes on
with the same.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tasks.core.digest import digest_bytes
from tasks.core.errors import StoreError, check_reachable
from tasks.core.media import CROP, ImageSpec, MediaError, pixels
from tasks.core.store import Holdings, load
from tasks.core.taps import CENTRE

CROPS_A_SEED = 1 << 20
"""Numbers of fresh crops that belong to one seed."""


class Looks(Protocol):
    """Ways to look at N samples."""

    @property
    def views(self) -> tuple[str, ...]:
        """Those by which samples are judged; what is said of a sample is the mean over them."""
        ...

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        """Look at samples to learn from them, each in a way that is drawn.

        Args:
            rows: (n,) numbers of samples.
            seed: of the draw.
            epoch: number of the pass over the samples.

        Returns:
            (n, ...) float32.
        """
        ...

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        """Look at samples in one of the views; (n,) -> (n, ...) float32."""
        ...


@dataclass(frozen=True)
class Kept:
    """Activations kept at a cut, read from their shards batch by batch.

    Attributes:
        held: view -> what is kept of it.
        digests: (N,) of the samples.
    """

    held: Mapping[str, Holdings]
    digests: np.ndarray

    @property
    def views(self) -> tuple[str, ...]:
        """All that are kept."""
        return tuple(self.held)

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        """See `Looks`."""
        which = np.random.default_rng(seed).integers(0, len(self.held), len(rows))
        out: Tensor | None = None
        for number, view in enumerate(self.held):
            here = np.flatnonzero(which == number)
            if len(here):
                some = self.fixed(rows[here], view)
                out = some.new_empty((len(rows), *some.shape[1:])) if out is None else out
                out[torch.from_numpy(here)] = some
        return torch.empty(0) if out is None else out

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        """See `Looks`."""
        return torch.from_numpy(load(self.held[view], self.digests[rows].tolist(), "float32"))


@dataclass(frozen=True)
class Live:
    """Pictures, decoded whenever they are looked at.

    Attributes:
        files: (N,) where they lie, and
        digests: (N,) what their bytes must be.
        spec: the backbone's preprocessing.
        ways: the views to learn from; "crop" is a fresh one in every epoch.
    """

    files: Sequence[str]
    digests: Sequence[str]
    spec: ImageSpec
    ways: tuple[str, ...]

    @property
    def views(self) -> tuple[str, ...]:
        """Those that are no crops; the centre if all are."""
        return tuple(way for way in self.ways if not way.startswith(CROP)) or (CENTRE,)

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        """See `Looks`."""
        which = np.random.default_rng(seed).integers(0, len(self.ways), len(rows))
        fresh = f"{CROP}:{seed[0] % CROPS_A_SEED * CROPS_A_SEED + epoch}"
        views = [fresh if self.ways[number] == CROP else self.ways[number] for number in which]
        return self._seen(rows, views)

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        """See `Looks`."""
        return self._seen(rows, [view] * len(rows))

    def _seen(self, rows: np.ndarray, views: Sequence[str]) -> Tensor:
        with ThreadPoolExecutor(cpu_count() or 2, thread_name_prefix="decode") as pool:
            seen = np.stack(list(pool.map(self._look, rows.tolist(), views)))  # (n, 3, crop, crop)
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (self.spec.mean, self.spec.std))
        return (torch.from_numpy(seen).float() - mean) / std

    def _look(self, row: int, view: str) -> np.ndarray:
        path, digest = Path(self.files[row]), self.digests[row]
        try:
            data = path.read_bytes()
        except OSError as error:
            check_reachable(path, error)
            raise StoreError(f"{path}: cannot be read ({error.strerror}); run again") from error
        if digest_bytes(data) != digest:
            raise StoreError(f"{path}: changed while the run was reading it; run again")
        try:
            return pixels(data, self.spec, view, digest)
        except MediaError as error:
            raise StoreError(f"{path}: {error}; run again, which sets it aside") from error
