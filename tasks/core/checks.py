"""What can be said of a study before it runs: each check is a function of plain values."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.core.errors import RequestError
from tasks.core.samples import UNKNOWN, check_enough
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.tables import readable
from tasks.core.trials import Part, parts_of
from tasks.core.words import about

OK, NOTE, WRONG = "ok", "note", "wrong"

FIRST = 3
"""So many of the files, names or classes that a check found are shown."""

IMBALANCE = 10
"""A class with so many times as many samples as another is told."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        name: of what was checked.
        state: "ok"; "note" if a run goes, but not as one may think; "wrong" if it would be refused or fail.
        found: in words.
        todo: what to do about it, or "".
    """

    name: str
    state: str
    found: str
    todo: str = ""


# Samples


def of_files(rows: int, quarantine: pd.DataFrame, unreadable: int, *, most_bad: float) -> Check:
    """Tell how many files are fit for use.

    Args:
        rows: how many samples are listed.
        quarantine: those to be set aside, with columns `path` and `reason`.
        unreadable: how many of them could not even be read.
        most_bad: share of them that is let pass.
    """
    bad = len(quarantine)
    if not bad:
        return Check("files", OK, f"{rows:,} listed, all usable")
    some = zip(quarantine.path[:FIRST], quarantine.reason[:FIRST], strict=True)
    shown = "; ".join(f"{readable(path)}: {reason}" for path, reason in some)
    found = (
        f"{rows:,} listed, {bad:,} to be set aside, {unreadable:,} of them unreadable "
        f"({shown}{'; ...' if bad > FIRST else ''})"
    )
    if bad / rows > most_bad:
        return Check(
            "files",
            WRONG,
            f"{found}: more than max_bad = {most_bad:g} allows",
            "mend the files or raise data.max_bad",
        )
    return Check("files", NOTE, found, "mend them, or let them be: a run goes on without, and lists them all")


def of_labels(written: Sequence[str], table: pd.DataFrame) -> list[Check]:
    """Tell how the samples spread over the classes.

    Args:
        written: the labels of all rows as they were written.
        table: the usable samples.
    """
    counts = Counter(table.label[table.label != ""].tolist())
    checks = [_counted(table, counts)]
    blank = int((table.label == "").sum())
    if blank:
        found = f"{blank:,} of {len(table):,} samples have no label"
        checks.append(
            Check("labels", NOTE, found, "they are neither trained on nor tested; label them if you can")
        )
    if counts and (most := max(counts.values())) >= IMBALANCE * (least := min(counts.values())):
        large, small = (next(name for name, n in counts.items() if n == ends) for ends in (most, least))
        checks.append(
            Check(
                "labels",
                NOTE,
                f"{readable(large)!r} has {most / least:.0f} times as many samples as {readable(small)!r}",
                'look at balanced accuracy; class_weights = ["balanced"] lets every class weigh the same',
            )
        )
    return checks + [
        Check(
            "labels",
            NOTE,
            f"{' and '.join(map(repr, map(readable, names)))} differ only by case or space: probably one class",
            "write them alike" + (" (a run strips the space around a name)" if stripped else ""),
        )
        for names in alike(text for text in written if text.strip() not in UNKNOWN)
        for stripped in [len({name.strip() for name in names}) == 1]
    ]


def _counted(table: pd.DataFrame, counts: Counter[str]) -> Check:
    """Show the classes, the largest first; wrong where there are too few of them, or of one."""
    shown = ", ".join(f"{readable(name)!r} {n:,}" for name, n in counts.most_common(2 * FIRST))
    more = len(counts) - 2 * FIRST
    found = f"{len(counts)} classes: {shown}" + (f" and {more} more" if more > 0 else "")
    try:
        check_enough(table, pd.DataFrame({"path": [], "reason": []}), max(1, len(table)), most_bad=1)
    except RequestError as refusal:
        what, _, todo = str(refusal).partition("; ")
        return Check("labels", WRONG, f"{what} ({found})" if counts else what, todo)
    return Check("labels", OK, found)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Find names that differ only by case or space."""
    found: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        found.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [some for _, some in sorted(found.items()) if len(some) > 1]


def of_copies(paths: Sequence[str], digests: Sequence[str], labels: Sequence[str]) -> list[Check]:
    """Tell which files hold the same bytes.

    Args:
        paths: (N,) as written.
        digests: (N,) of each file's bytes, "" where it could not be read.
        labels: (N,) as written.
    """
    same: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest:
            same.setdefault(digest, []).append(row)
    copied = [rows for rows in same.values() if len(rows) > 1]
    if not copied:
        return [Check("duplicates", OK, "no two files hold the same bytes")]
    torn = [rows for rows in copied if len({labels[row].strip() for row in rows} - set(UNKNOWN)) > 1]
    whole = [rows for rows in copied if rows not in torn]
    told = [
        (
            torn,
            f"{len(torn):,} pictures stand under several names with contradicting labels",
            "say which label is right: all of their copies are set aside",
        ),
        (whole, f"{len(whole):,} pictures stand under several names", "nothing: each counts as one sample"),
    ]
    return [
        Check(
            "duplicates",
            NOTE,
            f"{found} ({', '.join(readable(paths[row]) for row in some[0][:FIRST])})",
            todo,
        )
        for some, found, todo in told
        if some
    ]


def of_weights(table: pd.DataFrame, column: str) -> Check:
    """Tell of the sample weights."""
    weights = table.weight[table.label != ""]
    if not weights.sum() > 0:
        found = f"column {column!r}: no labelled sample weighs more than zero"
        return Check("weights", WRONG, found, "weigh some, or leave data.weight out")
    found = f"column {column!r}: from {weights.min():g} to {weights.max():g}"
    if none := int((weights == 0).sum()):
        todo = "such samples are neither learnt from nor counted in weighted accuracy"
        return Check("weights", NOTE, f"{found}, {none:,} of {len(weights):,} weigh nothing", todo)
    return Check("weights", OK, found)


# Verdict


def of_verdict(needed: int, skipped: int, seconds: Sequence[float] | None, most: float) -> Check:
    """Tell whether there is time for what a verdict measures.

    Args:
        needed: how many cells there are, those that are measured included.
        skipped: how many more are left out, since their share leaves a class too few samples.
        seconds: that each cell takes which is to be measured, in that order; None where nobody knows.
        most: that they may take in one run.
    """
    left = f", {skipped:,} more are left out: their share leaves a class too few samples" if skipped else ""
    if seconds is None:
        return Check("verdict", NOTE, f"{needed:,} cells{left}; nobody knows how long they take")
    found = f"{needed:,} cells{left}; {len(seconds):,} to measure"
    if not seconds:
        return Check("verdict", OK, f"{needed:,} cells{left}; none is left to measure")
    found += f" in {about(sum(seconds))}; a run gives them {most / 60:g} minutes"
    rest, done = most, 0
    for each in seconds:
        if each <= rest:
            rest, done = rest - each, done + 1
    if done == len(seconds):
        return Check("verdict", OK, found)
    found += f", enough for {done:,} of them"
    if never := [each for each in seconds if each > most]:
        found += f"; {len(never):,} take longer by themselves, and are never measured"
        return Check("verdict", NOTE, found, f"raise verdict.minutes to {math.ceil(max(never) / 60):,}")
    return Check(
        "verdict", NOTE, found, "raise verdict.minutes, or run again: the next run goes on from there"
    )


# Splits


def of_split(spec: SplitSpec, known: pd.DataFrame, *, folds: int) -> list[Check]:
    """Cut the labelled samples as a run would, and tell what comes of it.

    Args:
        spec: how.
        known: labelled samples.
        folds: inner folds that a training part is cut into where it has enough of each class.
    """
    try:
        parts = list(parts_of(known, [spec]))
    except RequestError as refusal:
        what, _, todo = str(refusal).partition("; ")
        return [Check("split", WRONG, f"{spec.name}: {what}", todo)]
    sides = [" to ".join(f"{n:,}" for n in sorted({min(of), max(of)})) for of in _sizes(parts)]
    seeds = f"{len(parts)} seed{'s' * (len(parts) > 1)}"
    found = f"{spec.name}: {sides[0]} to train on, {sides[1]} to test on, {seeds}"
    checks = [
        Check("split", OK, found if spec.group is None else f"{found}, {_groups(spec, known):,} groups")
    ]
    if spec.group is not None and _groups(spec, known) == len(known):
        found = f"{spec.name}: column {spec.group!r} has as many groups as samples, so that it keeps nothing together"
        checks.append(Check("split", NOTE, found, "name a coarser column, or leave group out"))
    trouble = [check for part in parts for check in _training(part, known, folds)]
    return checks + sorted(trouble, key=lambda check: check.state != WRONG)[:1]


def _sizes(parts: Sequence[Part]) -> tuple[list[int], list[int]]:
    return [int((~part.test).sum()) for part in parts], [int(part.test.sum()) for part in parts]


def _groups(spec: SplitSpec, known: pd.DataFrame) -> int:
    return len(set(groups_of(known, spec)))


def _training(part: Part, known: pd.DataFrame, folds: int) -> list[Check]:
    """Tell what a training part lacks: weight, or groups of a class for inner folds."""
    seen = known[~part.test]
    where = f"{part.spec.name}, seed {part.seed}"
    if not seen.weight.sum() > 0:
        todo = "weigh some, or split otherwise"
        return [Check("split", WRONG, f"{where}: no training sample has a weight above zero", todo)]
    groups = {label: len(set(part.groups[~part.test][seen.label == label])) for label in set(seen.label)}
    rarest = min(sorted(groups), key=groups.__getitem__)
    if (few := groups[rarest]) >= folds:
        return []
    what = "sample" if part.spec.group is None else "group"
    follows = (
        f"{few} inner folds instead of {folds}" if few > 1 else "no inner folds, so that nothing is chosen"
    )
    found = f"{where}: class {readable(rarest)!r} has {few} {what}{'s' * (few > 1)} to train on: {follows}"
    return [Check("split", NOTE, found, "add samples of it")]
