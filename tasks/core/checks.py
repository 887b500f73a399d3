"""What can be said of a study before it runs: each check is a function of plain values."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from packaging.requirements import InvalidRequirement, Requirement

from tasks.core.errors import RequestError
from tasks.core.samples import UNKNOWN, check_enough
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.stored import BYTES_A_NUMBER, SHARE, fits_in_memory, machine_memory
from tasks.core.tables import readable
from tasks.core.trials import Part, parts_of

OK, NOTE, WRONG = "ok", "note", "wrong"

FIRST = 3
"""So many of the files, names or classes that a check found are shown."""

IMBALANCE = 10
"""A class with so many times as many samples as another is told."""

NEARLY_FULL = 0.9
"""Of the free space."""


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


@dataclass(frozen=True)
class Need:
    """What training on some features takes.

    Attributes:
        experiment: the first that is trained on them.
        heads: the kinds of its heads, and of the others on the same features.
        rows: samples times views.
        columns: features side by side.
    """

    experiment: str
    heads: frozenset[str]
    rows: int
    columns: int

    def fits(self) -> bool:
        """Whether the features are held in memory, as the training asks itself."""
        return fits_in_memory(self.rows, self.columns)


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
        for names, stripped in _alike(written)
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


def _alike(written: Sequence[str]) -> list[tuple[list[str], bool]]:
    """Find labels that differ only by case or space, and whether by the space around them alone."""
    names = sorted({text for text in written if text.strip() not in UNKNOWN})
    plain = {name: " ".join(name.casefold().split()) for name in names}
    groups = [
        list(some) for _, some in groupby(sorted(names, key=lambda name: plain[name]), key=plain.__getitem__)
    ]
    return [(some, len({name.strip() for name in some}) == 1) for some in groups if len(some) > 1]


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


# The machine


def of_space(needed: int, free: int, unknown: Sequence[str]) -> Check:
    """Tell whether the features fit on the disk.

    Args:
        needed: bytes that are still to be written, as far as known.
        free: bytes.
        unknown: backbones of which nobody knows how large a row is.
    """
    more = f", and those of {', '.join(unknown)}, of unknown size" if unknown else ""
    found = f"features take {size(needed)}{more}; {size(free)} are free"
    if needed > free:
        return Check(
            "disk",
            WRONG,
            found,
            "free some, choose another disk with --artifacts, or take fewer taps or views",
        )
    if unknown or needed > NEARLY_FULL * free:
        return Check("disk", NOTE, found, "see that there is room: heads and results come on top")
    return Check("disk", OK, found)


def of_memory(needs: Sequence[Need]) -> list[Check]:
    """Tell which features are held in memory for training, and which heads cannot do without that."""
    if not needs:
        return [Check("memory", NOTE, "not told, since nobody knows how large a row of features is")]
    limit, checks = SHARE * machine_memory(), []
    for need in (need for need in needs if not need.fits()):
        found = (
            f"{need.experiment}: training on {need.rows:,} rows of {need.columns:,} features takes "
            f"{size(need.rows * need.columns * BYTES_A_NUMBER)}, more than the {size(limit)} it may"
        )
        others = ", ".join(sorted(need.heads - {"softmax"}))
        if others:
            todo = 'only head "softmax" is trained from a stream; leave the others out, or take fewer taps or views'
            checks.append(Check("memory", WRONG, f"{found}; head {others} needs that", todo))
        else:
            checks.append(
                Check("memory", NOTE, found, "nothing: the heads are trained from a stream, which is slower")
            )
    largest = max(need.rows * need.columns * BYTES_A_NUMBER for need in needs)
    fine = Check("memory", OK, f"training takes at most {size(largest)}; it may take {size(limit)}")
    return checks or [fine]


def of_versions(needed: Mapping[str, Sequence[str]], installed: Callable[[str], str]) -> list[Check]:
    """Hold installed packages against what others say that they need.

    Args:
        needed: package -> its requirements, as its metadata spells them.
        installed: package -> its version, or "".
    """
    return [
        Check(
            "versions",
            WRONG,
            f"{package} needs {wish.name}{wish.specifier}, {installed(wish.name) or 'none'} is installed",
            f"pip install '{wish.name}{wish.specifier}'",
        )
        for package, texts in needed.items()
        for wish in map(_requirement, texts)
        if wish is not None and not _is_met(wish, installed(wish.name))
    ]


def _is_met(wish: Requirement, version: str) -> bool:
    return bool(version) and wish.specifier.contains(version, prereleases=True)


def _requirement(text: str) -> Requirement | None:
    """Read a requirement; None if it is for an extra, for another system, or cannot be read."""
    try:
        wish = Requirement(text)
    except InvalidRequirement:
        return None
    return wish if wish.marker is None or wish.marker.evaluate({"extra": ""}) else None


# Words


def size(bytes_: float) -> str:
    """Spell a number of bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"


def about(seconds: float) -> str:
    """Spell a time so roughly as an estimate is: "about 2 minutes"."""
    if seconds < 1.5:
        return "about a second"
    for unit, length, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48)):
        if seconds < most * length:
            return f"about {_rounded(seconds / length)} {unit}{'s' * (_rounded(seconds / length) > 1)}"
    return f"about {_rounded(seconds / 86400)} days"


def _rounded(number: float) -> int:
    """Leave one digit of what is above 10, and half of the next: 13 -> 15, 42 -> 40, 87 -> 85."""
    step = 1 if number < 10 else 5 * 10 ** (math.floor(math.log10(number)) - 1)
    return max(1, round(number / step) * step)
