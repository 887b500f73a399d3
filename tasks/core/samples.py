"""Samples: files read, digested and checked once, then known by the digest of their bytes."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.digest import Stamp, StatCache, digest_bytes, digest_value
from tasks.core.errors import RequestError, check_reachable, may_pass
from tasks.core.media import MediaError, decode
from tasks.core.tables import readable, told
from tasks.core.targets import ANSWER, Target, answer_column, check_asked, targets_of

UNKNOWN = ("", "?")
"""What a manifest writes where a label is not known."""


MOST_BYTES = 2**31
"""A file with more is not read: no picture within `media.MOST_PIXELS` needs them, and memory has an end."""

TOGETHER = 2048
"""Files that are read before what was found of them is remembered: what a killed run reads again at most."""


class Examined(NamedTuple):
    """What reading a file told.

    Attributes:
        digest: of its bytes, or "" if it could not be read.
        problem: what is wrong with it, or "".
    """

    digest: str
    problem: str


def examine(
    paths: Sequence[str],
    problems: Sequence[str],
    artifacts: Artifacts,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Examined], int]:
    """Digest files and check that each can be decoded; a file unchanged since last time is not read.

    Args:
        paths: (N,) places of files, which may not exist.
        problems: (N,) what is wrong with a path as it was written, or ""; such a file is not touched.
        artifacts: where it is remembered what was read before.
        progress: is told how many of the files to read are done.

    Returns:
        What is known of each path, and how many files were read.
    """
    known, unread = look(paths, problems, artifacts)
    seen = _remembered(artifacts)
    with ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="examine") as pool:
        for start in range(0, len(unread), TOGETHER):
            fresh: dict[str, Examined] = {}
            together = list(unread)[start : start + TOGETHER]
            for path, found in zip(together, pool.map(_read, together), strict=True):
                fresh[path] = found
                progress(start + len(fresh))
            told_whole = {
                path: f"{item.digest} {item.problem}" for path, item in fresh.items() if item.digest
            }
            seen.remember(told_whole, unread)
            known |= fresh
    return tell(paths, problems, known), len(unread)


def look(
    paths: Sequence[str], problems: Sequence[str], artifacts: Artifacts
) -> tuple[dict[str, Examined], dict[str, Stamp]]:
    """Tell files of which all is known from those that must be read; none is opened.

    Args:
        paths: (N,) places of files, which may not exist.
        problems: (N,) what is wrong with a path as it was written, or ""; such a file is not touched.
        artifacts: where it is remembered what was read before.

    Returns:
        What is known, and the stamps of the files that must be read. A path that was written wrong is in neither.
    """
    allowed = dict.fromkeys(path for path, problem in zip(paths, problems, strict=True) if not problem)
    texts, stamps = _remembered(artifacts).recall(allowed)
    known = {path: Examined(*text.split(" ", 1)) for path, text in texts.items()}
    strange = {path: problem for path in allowed if path not in known and (problem := _not_a_file(path))}
    known |= {path: Examined("", problem) for path, problem in strange.items()}
    return known, {path: stamp for path, stamp in stamps.items() if path not in strange}


def tell(paths: Sequence[str], problems: Sequence[str], known: Mapping[str, Examined]) -> list[Examined]:
    """Put what is known in the order of the paths.

    Args:
        paths: (N,) places of files.
        problems: (N,) what is wrong with a path as it was written, or "".
        known: what is known of the others.
    """
    return [
        Examined("", problem) if problem else known.get(path, GONE)
        for path, problem in zip(paths, problems, strict=True)
    ]


GONE = Examined("", "no such file (it went away while it was looked at)")


@dataclass(frozen=True)
class Columns:
    """Which columns of a manifest mean what.

    Attributes:
        target: the label; "" where there are several targets.
        weight: the sample weight, or None when all count the same.
        others: further columns that the splits use.
        targets: the columns of several targets.
    """

    target: str
    weight: str | None = None
    others: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()

    def names(self) -> list[str]:
        """List the columns that a manifest must have besides `path`."""
        asked = (target.name for target in self.targets)
        return list(dict.fromkeys(name for name in (self.target, *asked, self.weight, *self.others) if name))


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        place: a manifest, or a folder with one sub-folder per class.
        root: the folder that relative paths start from.
        columns: which columns of the manifest mean what.
        most_bad: share of samples that may be quarantined.
    """

    place: Path
    root: Path
    columns: Columns
    most_bad: float


def assemble(
    frame: pd.DataFrame, places: Sequence[str], examined: Sequence[Examined], columns: Columns
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sort a manifest's rows into usable samples, one for each digest, and those to quarantine.

    The same bytes under several names are one sample. Copies that contradict each other in a
    label are all set aside, since nobody can say which of them is right, even where one of them cannot
    be used for another reason; what a usable one leaves unknown, another may tell.

    Args:
        frame: (N) rows of a manifest, as text.
        places: (N,) where each file lies.
        examined: (N,) what reading it told.
        columns: which columns to keep, and as what.

    Returns:
        The samples, in the order of their digests, with columns `digest`, `path`, `label` (text, ""
        when unknown; or one for each target, as `answer_column` names it), `weight` (float) and the others, as
        `told` names them; and the quarantine list, with columns `path` and `reason`.
    """
    weights = (
        [_weight(text) for text in frame[columns.weight].tolist()] if columns.weight else [1.0] * len(frame)
    )
    labels, wrong = _labels(frame, columns)
    table = pd.DataFrame(
        {
            "digest": [item.digest for item in examined],
            "path": list(places),
            **labels,
            "weight": weights,
            **{told(name): frame[name].to_numpy() for name in columns.others},
            "written": frame["path"].to_numpy(),
            "reason": [item.problem or problem for item, problem in zip(examined, wrong, strict=True)],
        }
    )
    table.loc[(table.reason == "") & table.weight.isna(), "reason"] = (
        f"{columns.weight} is no number of at least 0"
    )
    sound = table.reason == ""
    same = (table.digest != "") & table.digest.duplicated(keep=False)  # few: only they are sorted and counted
    torn = pd.Series(data=False, index=table.index)
    for name in labels:
        known = table[same & (table[name] != "")].groupby("digest")[name].nunique()  # what any copy tells
        contradicted = sound & table.digest.isin(known.index[known > 1])
        of = "another label" if name == "label" else f"another answer to {name.removeprefix(ANSWER)}"
        table.loc[contradicted & ~torn, "reason"] = f"the same picture stands in the table with {of}"
        torn |= contradicted
    copies = _merged(table[sound & same & ~torn], list(labels))
    good = pd.concat([table[sound & ~same], copies]).sort_values("digest")
    bad = table[table.reason != ""]
    quarantine = pd.DataFrame({"path": bad.written, "reason": bad.reason}).reset_index(drop=True)
    return good.drop(columns=["written", "reason"]).reset_index(drop=True), quarantine


def _labels(frame: pd.DataFrame, columns: Columns) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of labels, "" where unknown, and what is wrong with each row's, or ""."""
    if not columns.targets:
        texts = [text.strip() for text in frame[columns.target].tolist()]
        return {"label": ["" if text in UNKNOWN else text for text in texts]}, [""] * len(frame)
    labels, wrong = {}, [""] * len(frame)
    for target in columns.targets:
        read = [target.read(text) for text in frame[target.name].tolist()]
        labels[answer_column(target.name)] = [answer or "" for answer in read]
        for row in (row for row, answer in enumerate(read) if answer is None and not wrong[row]):
            written = readable(frame[target.name].iloc[row])
            wrong[row] = (
                f"{target.name}: {written!r} is none of 0, 1 and ? (unknown); other answers need kind = 'classes'"
            )
    return labels, wrong


def _merged(copies: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Make one row of the copies of each sample: that which knows most, and what the others know besides."""
    unknown = (copies[labels] == "").sum(axis=1)
    first = (
        copies.assign(unknown=unknown).sort_values(["digest", "unknown", "path"]).drop_duplicates("digest")
    )
    known = copies.groupby("digest")[list(labels)].max()  # one answer at most, and "" before any
    first[list(labels)] = known.loc[first.digest].to_numpy()
    return first.drop(columns="unknown")


def table_identity(table: pd.DataFrame) -> str:
    """Digest all that a table of samples says but where the files lie."""
    return digest_value({name: table[name].tolist() for name in table if name != "path"})


def check_enough(table: pd.DataFrame, quarantine: pd.DataFrame, rows: int, *, most_bad: float) -> None:
    """Refuse to go on with too few samples.

    Args:
        table: the usable samples.
        quarantine: the others.
        rows: how many the manifest has.
        most_bad: share of quarantined rows that is let pass.

    Raises:
        RequestError: if more are bad, or a class has fewer than two samples, or there is one class only; of several
            targets, if none has two answers.
    """
    if len(quarantine) / rows > most_bad:
        first = quarantine.iloc[0]
        raise RequestError(
            f"{len(quarantine)} of {rows} samples cannot be used, more than max_bad = {most_bad:g} allows "
            f"(first: {readable(first.path)}: {first.reason}); see quarantine.csv, mend the files or raise data.max_bad"
        )
    if targets_of(table):
        check_asked(table)
        return
    classes = Counter(table.label[(table.label != "") & (table.weight > 0)])
    if len(classes) < 2:
        raise RequestError(
            f"{len(classes)} class(es) with usable samples ({', '.join(map(readable, classes))}); "
            "at least two are needed"
        )
    rare = [name for name, n in sorted(classes.items()) if n < 2]
    if rare:
        raise RequestError(
            f"class {rare[0]!r} has one usable sample; at least two are needed, one to train on and one to test on"
        )


def _remembered(artifacts: Artifacts) -> StatCache:
    return artifacts.seen(f"sample {versions.MEDIA}")


def _not_a_file(path: str) -> str:
    """Say why a path cannot be read as a file, without opening it (a pipe would wait for ever)."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and may_pass(error):
            check_reachable(Path(path), error)
        return f"no such file ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(found.st_mode):
        return "a folder, not a file"
    if not stat.S_ISREG(found.st_mode):
        return "neither a file nor a folder"
    return f"more than {MOST_BYTES:,} bytes" if found.st_size > MOST_BYTES else ""


def _read(path: str) -> Examined:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        check_reachable(Path(path), error)
        return Examined("", f"cannot be read ({error.strerror or error})")
    try:
        decode(data)
    except MediaError as error:
        return Examined(digest_bytes(data), str(error))
    return Examined(digest_bytes(data), "")


def _weight(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return float("nan")
    return number if np.isfinite(number) and number >= 0 else float("nan")
