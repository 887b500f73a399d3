"""What can be said of several targets before a study runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.core.answer_parts import able_targets, answer_parts
from tasks.core.checks import FIRST, NOTE, OK, WRONG, Check, alike, of_copies, of_weights
from tasks.core.errors import RequestError
from tasks.core.splits import SplitSpec
from tasks.core.tables import readable
from tasks.core.targets import Target, answered, answers_of

SHOWN = 10
"""So many targets are told one by one."""


def of_answers(table: pd.DataFrame, splits: Sequence[SplitSpec], least: int) -> list[Check]:
    """Tell what is known of each target, which would be left out, and what each split gives.

    Args:
        table: the usable samples.
        splits: how they are cut.
        least: as `able_targets`.
    """
    known, counts = answered(table), answers_of(table).counts()
    told = [
        f"{readable(each['target'])}: "
        + ", ".join(f"{number:,} {readable(name)}" for name, number in each["classes"].items())
        + f", {each['unknown']:,} unknown"
        for each in counts[:SHOWN]
    ]
    more = [f"and {len(counts) - SHOWN} more"] if len(counts) > SHOWN else []
    checks = [Check("targets", OK, "; ".join([*told, *more]))]
    if silent := len(table) - len(known):
        found = f"{silent:,} of {len(table):,} samples answer nothing"
        checks.append(
            Check("targets", NOTE, found, "they serve extraction alone; answer something if you can")
        )
    try:
        able = able_targets(known, splits, least)
    except RequestError as refusal:
        what, _, todo = str(refusal).partition("; ")
        return [*checks, Check("targets", WRONG, what, todo)]
    checks += [
        Check("targets", NOTE, f"{readable(name)} would be left out: {reason}", "answer it for more samples")
        for name, reason in able.left_out.items()
    ]
    return [*checks, *(_of_split(spec, known) for spec in splits)]


def of_spellings(written: Mapping[Target, Sequence[str]]) -> list[Check]:
    """Tell which answers to one question are probably one, misspelt.

    Args:
        written: target -> the answers of all rows as they were written.
    """
    return [
        Check(
            "targets",
            NOTE,
            f"{readable(target.name)}: {' and '.join(map(repr, map(readable, names)))} differ only by case or space: "
            "probably one answer",
            "write them alike",
        )
        for target, texts in written.items()
        for names in alike(set(_read(target, texts)) - {""})
    ]


def _read(target: Target, texts: Sequence[str]) -> list[str]:
    """Read answers, "" where one is unknown or none."""
    return [target.read(text) or "" for text in texts]


def of_answer_copies(
    paths: Sequence[str], digests: Sequence[str], written: Mapping[Target, Sequence[str]]
) -> list[Check]:
    """Tell which files hold the same bytes, and to which questions such files give contradicting answers.

    Args:
        paths: (N,) as written.
        digests: (N,) of each file's bytes, "" where it could not be read.
        written: target -> (N,) the answers as they were written.
    """
    torn = {target.name: _torn(digests, _read(target, texts)) for target, texts in written.items()}
    names, disputed = [readable(name) for name, found in torn.items() if found], set().union(*torn.values())
    # to whichever question, a copy of what is disputed has a label of its own
    labels = [f"row {row}" if digest in disputed else "" for row, digest in enumerate(digests)]
    checks = of_copies(paths, digests, labels)
    if names:
        more = f" and {len(names) - FIRST} more" if len(names) > FIRST else ""
        checks[0] = replace(checks[0], found=f"{', '.join(names[:FIRST])}{more}: {checks[0].found}")
    return checks


def _torn(digests: Sequence[str], answers: Sequence[str]) -> set[str]:
    """Find the digests whose copies give contradicting answers to one question."""
    first: dict[str, str] = {}
    known = [(digest, answer) for digest, answer in zip(digests, answers, strict=True) if digest and answer]
    return {digest for digest, answer in known if first.setdefault(digest, answer) != answer}


def of_answer_weights(table: pd.DataFrame, column: str) -> Check:
    """Tell of the sample weights of those that answer something, as `of_weights`; no score of targets is weighted."""
    found = of_weights(answered(table).assign(label="of some target"), column)
    return replace(found, todo="such samples are not learnt from") if found.state == NOTE else found


def beyond_two(table: pd.DataFrame, splits: Sequence[SplitSpec], least: int) -> tuple[str, ...]:
    """Name the targets that are learnt and have more than two answers; none of these is learnt from a stream.

    Args:
        table: the usable samples.
        splits: how they are cut.
        least: as `able_targets`.
    """
    known = answered(table)
    answers = answers_of(known)
    many = [name for name, size in zip(answers.targets, answers.sizes, strict=True) if size > 2]
    kept = able_targets(known, splits, least).kept if many else ()
    return tuple(name for name in many if name in kept)


def _of_split(spec: SplitSpec, known: pd.DataFrame) -> Check:
    tests = [int(part.test.sum()) for part in answer_parts(known, [spec])]
    sides = [
        " to ".join(f"{n:,}" for n in sorted({min(of), max(of)}))
        for of in ([len(known) - n for n in tests], tests)
    ]
    seeds = f"{len(tests)} seed{'s' * (len(tests) > 1)}"
    empty = not np.all(tests) or len(known) in tests
    return Check(
        "split",
        WRONG if empty else OK,
        f"{spec.name}: {sides[0]} to train on, {sides[1]} to test on, {seeds}",
        "ask for another share, or a finer group" if empty else "",
    )
