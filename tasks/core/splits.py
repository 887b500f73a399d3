"""Training and test parts: seeded, stratified, group-safe, and as stable as those three allow.

Every group draws a fixed ticket, the digest of (seed, group), and groups are served in the order
of their tickets. So the answer depends on no row order and no library's random numbers, and new
samples hardly move old ones: to move m old rows of a stratum, m new ones must be added to it.
(No rule can fix each sample's side for ever and also keep the strata's shares: a side that depends
on nothing but the sample is an independent draw. Whoever needs a fixed test part writes it down,
in the manifest's `split` column.)
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import pandas as pd

from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.tables import told


def split_by_group(
    groups: Sequence[str], classes: Sequence[str], strata: Sequence[str], *, test: float, seed: int
) -> np.ndarray:
    """Mark the test rows so that no group stands on both sides and each stratum gives its share.

    Groups are offered in the order of their tickets; one is taken when that brings the strata's
    test counts closer to their quotas (the sum of the distances gets smaller). With groups of one
    row every quota is met exactly. A class that has groups enough stands on both sides.

    Args:
        groups: (N,) one id per row; rows that share an id stay together.
        classes: (N,) the label of each row.
        strata: (N,) the stratum of each row; often the label itself.
        test: share of rows wanted in the test part, 0 < test < 1.
        seed: same seed and same rows give the same answer on any machine.

    Returns:
        (N,) bool, True for test. Groups that hold one stratum each meet its share to within the largest
        of them; groups that mix strata as nearly as their order allows.

    Raises:
        RequestError: if a class has all its rows in one group, so that it cannot stand on both sides.
    """
    members = _members(groups)
    quota = {stratum: _quota(n, test) for stratum, n in Counter(strata).items()}
    taken: set[str] = set()
    order = by_ticket(members, seed)
    for group in order:
        if _gain(Counter(strata[row] for row in members[group]), quota) > 0:
            taken.add(group)
            quota.update({s: quota[s] - n for s, n in Counter(strata[row] for row in members[group]).items()})
    _seat_every_class(taken, order, members, classes)
    return np.array([group in taken for group in groups], dtype=bool)


def by_ticket(ids: Sequence[str] | dict[str, list[int]], seed: int) -> list[str]:
    """Order ids by the digest of (seed, id), the same on every machine."""
    return sorted(ids, key=lambda name: digest_value([seed, name]))


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return members


def _quota(rows: int, test: float) -> int:
    return floor(rows * test + 0.5)


def _gain(counts: Counter[str], quota: dict[str, int]) -> int:
    """How much closer to the quotas still open this group brings the test part."""
    return sum(abs(quota[stratum]) - abs(quota[stratum] - n) for stratum, n in counts.items())


def _seat_every_class(
    taken: set[str], order: list[str], members: dict[str, list[int]], classes: Sequence[str]
) -> None:
    """Move groups, one at a time, until each class stands on both sides.

    Parting every class is as hard as colouring a hypergraph with two colours, so it is tried step by
    step: the move that leaves the fewest classes on one side, of equals the one nearest the edge.
    """
    holders: dict[str, list[str]] = {}
    for group in order:
        for name in {classes[row] for row in members[group]}:
            holders.setdefault(name, []).append(group)
    _check_groups(holders)
    tried: set[frozenset[str]] = set()
    while lone := _on_one_side(taken, holders):
        tried.add(frozenset(taken))
        groups = holders[lone[0]]
        nearest = groups if taken.isdisjoint(groups) else reversed(groups)  # to the edge between the parts
        moves = [taken ^ {group} for group in nearest if frozenset(taken ^ {group}) not in tried]
        if not moves:
            raise RequestError(
                f"class {lone[0]!r}: no way was found to part its {len(groups)} groups without leaving "
                "another class on one side; split by a finer group or add samples"
            )
        best = min(moves, key=lambda move: len(_on_one_side(move, holders)))
        taken.clear()
        taken.update(best)


def _on_one_side(taken: set[str], holders: dict[str, list[str]]) -> list[str]:
    """List the classes that stand in the test part alone, or not at all."""
    return [
        name
        for name, groups in sorted(holders.items())
        if taken.isdisjoint(groups) or taken.issuperset(groups)
    ]


def _check_groups(holders: dict[str, list[str]]) -> None:
    for name, groups in sorted(holders.items()):
        if len(groups) < 2:
            raise RequestError(
                f"class {name!r} has all its samples in one group ({groups[0]}); two groups at least are "
                "needed, to train on one and test on the other; add samples or leave the class out"
            )


@dataclass(frozen=True)
class SplitSpec:
    """How to cut a table of samples into a training and a test part, once for each seed.

    Attributes:
        name: what tables call it.
        test: share of the test part.
        seeds: one split each.
        stratify: columns whose combinations keep their shares; the label when empty.
        group: column whose equal values stay together, or None.
        column: a column that says "train" or "test" for each sample, instead of all the above.
    """

    name: str
    test: float = 0.25
    seeds: tuple[int, ...] = (0,)
    stratify: tuple[str, ...] = ()
    group: str | None = None
    column: str | None = None

    def columns(self) -> tuple[str, ...]:
        """List the columns that it reads."""
        named = (*self.stratify, self.group, self.column)
        return tuple(name for name in named if name)


def groups_of(table: pd.DataFrame, spec: SplitSpec) -> np.ndarray:
    """Give each sample its group's id: the group column's text, or the sample's own digest.

    A blank group is a group of its own.
    """
    own = table.digest.to_numpy(dtype=object)
    if spec.group is None:
        return own
    named = table[told(spec.group)].to_numpy(dtype=object)
    return np.where(named == "", own, named)


def split_table(table: pd.DataFrame, spec: SplitSpec, seed: int) -> np.ndarray:
    """Mark the test part of a table of labelled samples.

    Args:
        table: columns `digest`, `label` and those that `spec` names, as `told` spells them.
        spec: how to split.
        seed: one of its seeds.

    Returns:
        (N,) bool, True for test.

    Raises:
        RequestError: if no such split can be made.
    """
    if spec.column is not None:
        return _with_each_class(table, spec.column)
    labels = table.label.tolist()
    strata = combinations(table, spec.stratify) if spec.stratify else labels
    return split_by_group(groups_of(table, spec).tolist(), labels, strata, test=spec.test, seed=seed)


def combinations(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Name each row's combination of values, so that no two combinations share a name."""
    return [repr(values) for values in zip(*(table[told(name)] for name in columns), strict=True)]


def written_down(table: pd.DataFrame, column: str) -> np.ndarray:
    """Read who is tested from a column of "train" and "test"; (N,) bool.

    Raises:
        RequestError: if the column says anything else.
    """
    parts = table[told(column)]
    found = sorted(set(parts))
    if not set(found) <= {"train", "test"}:
        listed = ", ".join(map(repr, found[:4]))
        raise RequestError(f"column {column!r} holds {listed}; only 'train' and 'test' are known")
    return (parts == "test").to_numpy()


def _with_each_class(table: pd.DataFrame, column: str) -> np.ndarray:
    test = written_down(table, column)
    for name, part in (("train", table[~test]), ("test", table[test])):
        absent = sorted(set(table.label) - set(part.label))
        if absent:
            raise RequestError(
                f"column {column!r}: no sample of class {absent[0]!r} is in {name!r}; each part needs each class"
            )
    return test
