"""Which heads a study needs, by name, and which of them are there: decided without training any."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.digest import StatCache, digest_value
from tasks.core.files import write_text
from tasks.core.heads import Grid, Inputs, head_key, held, shelf_key
from tasks.core.splits import SplitSpec, groups_of, split_table


@dataclass(frozen=True)
class Part:
    """A table of labelled samples, cut once.

    Attributes:
        spec: how, and
        seed: with which seed.
        groups: (N,) the group of each sample.
        test: (N,) bool.
        share: (N,) bool, what is learnt from; None for all that is not tested.
    """

    spec: SplitSpec
    seed: int
    groups: np.ndarray
    test: np.ndarray
    share: np.ndarray | None = None

    @property
    def training(self) -> np.ndarray:
        """(N,) bool, what is learnt from."""
        return ~self.test if self.share is None else self.share


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Leave the samples that have a label; the others are neither trained on nor tested."""
    return table[table.label != ""].reset_index(drop=True)


def parts_of(table: pd.DataFrame, splits: Sequence[SplitSpec]) -> Iterator[Part]:
    """Cut a table of labelled samples once for each split and seed.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    for spec in splits:
        groups = groups_of(table, spec)
        for seed in spec.seeds:
            yield Part(spec, seed, groups, split_table(table, spec, seed))


def together(grids: Sequence[Grid]) -> list[tuple[Grid, ...]]:
    """Put the grids of heads that have the same inputs together, in the order of the first of each.

    Layers are trained by themselves.
    """

    def kind(grid: Grid) -> tuple[Inputs, str]:
        return grid.inputs, grid.name if grid.is_network else ""

    order = list(dict.fromkeys(map(kind, grids)))
    ranked = sorted(grids, key=lambda grid: order.index(kind(grid)))
    return [tuple(some) for _, some in groupby(ranked, key=kind)]


def name_of(grids: Sequence[Grid]) -> str:
    """Name grids that are trained together."""
    more = len(grids) - 1
    return grids[0].name if not more else f"{grids[0].name} and {more} more"


def shelf_of(folder: Path, inputs: Inputs, sets: Sequence[str], table: pd.DataFrame, part: Part) -> Path:
    """Name the folder of the heads that are trained on one part.

    Args:
        folder: of all heads.
        inputs: of the heads.
        sets: the identities of their feature sets, in order.
        table: labelled samples.
        part: how they are cut.
    """
    used = part.training | part.test
    some = table[used]
    rows = list(zip(some.digest, some.label, some.weight, part.groups[used], strict=True))
    return folder / shelf_key(inputs, sets, rows, part.test[used], part.seed)


def shelves_identity(
    inputs: Inputs, sets: Sequence[str], samples: str, splits: Sequence[SplitSpec]
) -> list[object]:
    """Say what decides which shelves there are, as plain values.

    Args:
        inputs: of the heads.
        sets: the identities of their feature sets, in order.
        samples: identity of the table of samples.
        splits: with their seeds.
    """
    return [inputs.identity(sets), samples, [asdict(spec) for spec in splits]]


def list_shelves(folder: Path, identity: Sequence[object], shelves: Sequence[Path]) -> None:
    """Keep the names of shelves, so that they are found without splitting again.

    Args:
        folder: of all heads.
        identity: as `shelves_identity`.
        shelves: one for each part.
    """
    write_text(_list(folder, identity), json.dumps([shelf.name for shelf in shelves]))


def heads_there(
    folder: Path,
    identity: Sequence[object],
    grid: Grid,
    seen: StatCache,
    shelves: Callable[[], Iterable[Path]],
) -> int:
    """Count the heads of a grid that need not be trained.

    Args:
        folder: of all heads.
        identity: as `shelves_identity`.
        grid: the heads.
        seen: as `held`.
        shelves: names the shelves; it is asked only where no list of them was kept.
    """
    try:
        places = [folder / name for name in _listed(_list(folder, identity))]
    except (OSError, ValueError):  # no list, or none that can be read
        places = list(shelves())
    keys = [head_key(hyper) for hyper in grid.hypers]
    return sum(key in found for found, _ in (held(place, seen) for place in places) for key in keys)


def _listed(place: Path) -> list[str]:
    names = json.loads(place.read_text(encoding="utf-8"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place}: is no list of shelves")
    return names


def _list(folder: Path, identity: Sequence[object]) -> Path:
    return folder / f"{digest_value(list(identity))}.json"
