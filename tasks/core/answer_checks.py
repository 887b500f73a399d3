"""What can be said of several targets before a study runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.core.answer_parts import able_targets, answer_parts
from tasks.core.checks import NOTE, OK, WRONG, Check
from tasks.core.errors import RequestError
from tasks.core.splits import SplitSpec
from tasks.core.tables import readable
from tasks.core.targets import answered, answers_of

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
