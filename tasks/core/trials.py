"""Which heads an experiment needs, by name, and which of them are there: decided without training any."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.digest import StatCache, digest_bytes, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import write_text
from tasks.core.heads import Experiment, head_key, load_head
from tasks.core.splits import SplitSpec, groups_of, split_table


@dataclass(frozen=True)
class Part:
    """A table of labelled samples, cut once.

    Attributes:
        spec: how, and
        seed: with which seed.
        groups: (N,) the group of each sample.
        test: (N,) bool.
    """

    spec: SplitSpec
    seed: int
    groups: np.ndarray
    test: np.ndarray


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


def head_path(
    folder: Path, experiment: Experiment, sets: Sequence[str], table: pd.DataFrame, part: Part
) -> Path:
    """Name the file of the head that an experiment trains on one part.

    Args:
        folder: of all heads.
        experiment: the head and its hyper-parameters.
        sets: the identities of its feature sets, in order.
        table: labelled samples.
        part: how they are cut.
    """
    rows = list(zip(table.digest, table.label, table.weight, part.groups, strict=True))
    return folder / f"{head_key(experiment, sets, rows, part.test, part.seed)}.safetensors"


def is_whole(path: Path) -> bool:
    """Whether a head can be read."""
    try:
        load_head(path)
    except StoreError:
        return False
    return True


def trial_identity(
    experiment: Experiment, sets: Sequence[str], samples: str, splits: Sequence[SplitSpec]
) -> list[object]:
    """Say what decides all heads of an experiment, as plain values.

    Args:
        experiment: the head and its hyper-parameters; its name decides nothing.
        sets: the identities of its feature sets, in order.
        samples: identity of the table of samples.
        splits: with their seeds.
    """
    return [experiment.identity(), list(sets), samples, [asdict(spec) for spec in splits]]


def list_heads(folder: Path, identity: Sequence[object], heads: Sequence[tuple[Path, str]]) -> None:
    """Keep the names and digests of an experiment's heads, so that they are found without splitting again.

    Args:
        folder: of all heads.
        identity: as `trial_identity`.
        heads: file and digest of each; all are written by now.
    """
    write_text(_list(folder, identity), json.dumps([[path.name, digest] for path, digest in heads]))


def heads_there(
    folder: Path,
    identity: Sequence[object],
    seen: StatCache,
    paths: Callable[[], Iterable[Path]],
) -> int:
    """Count the heads of an experiment that need not be trained.

    Args:
        folder: of all heads.
        identity: as `trial_identity`.
        seen: remembers the digests of heads that have not changed.
        paths: names the heads; it is asked only where no list of them was kept.
    """
    try:
        listed = json.loads(_list(folder, identity).read_text(encoding="utf-8"))
        return sum(_digest(folder / name, seen) == digest for name, digest in listed)
    except (OSError, ValueError, TypeError):  # no list, or none that can be read
        return sum(map(is_whole, paths()))


def _digest(path: Path, seen: StatCache) -> str:
    try:
        return seen.value(path, lambda path: digest_bytes(path.read_bytes()))
    except OSError:
        return ""


def _list(folder: Path, identity: Sequence[object]) -> Path:
    return folder / f"{digest_value(list(identity))}.json"
