"""Targets of a study that asks several questions: how each is written in a manifest, and who knows what."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.core.answers import YES_NO, Answers
from tasks.core.errors import RequestError
from tasks.core.tables import readable

ANSWER = "answer."
"""How the columns of answers begin in a table of samples."""
BLANK = ("", "?", "nan")
"""How an unknown answer is written, in small or capital letters."""
NUMBERS = {"0": "0", "1": "1", "0.0": "0", "1.0": "1"}
"""A yes or no as people write it, and as tables do that also hold what is no number."""


@dataclass(frozen=True)
class Target:
    """A column to predict, among others.

    Attributes:
        name: the column.
        kind: "yes/no", whose answers are 0 and 1; or "classes", any text but NaN.
        weight: what its weight in a joint loss is multiplied with.
    """

    name: str
    kind: str = "yes/no"
    weight: float = 1.0

    def read(self, text: str) -> str | None:
        """Read an answer: "" where it is unknown (blank, `?`, NaN), None where it is none."""
        text = text.strip()
        if text.lower() in BLANK:
            return ""
        return text if self.kind == "classes" else NUMBERS.get(text)


def answer_column(target: str) -> str:
    """Name a target's column in a table of samples."""
    return f"{ANSWER}{target}"


def targets_of(table: pd.DataFrame) -> list[str]:
    """List the targets whose answers a table of samples has."""
    return [name.removeprefix(ANSWER) for name in map(str, table.columns) if name.startswith(ANSWER)]


def answers_of(table: pd.DataFrame, targets: Sequence[str] = ()) -> Answers:
    """Read the answers of a table of samples, to some or all of its targets."""
    names = targets or targets_of(table)
    return Answers.of({name: table[answer_column(name)].tolist() for name in names})


def answered(table: pd.DataFrame) -> pd.DataFrame:
    """Leave the samples of which something is known; the others are neither trained on nor tested."""
    columns = [answer_column(name) for name in targets_of(table)]
    return table[(table[columns] != "").any(axis=1)].reset_index(drop=True)


def about(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Make a table of one target's answers as labels, "" where unknown, in the place of all answers."""
    columns = [answer_column(name) for name in targets_of(table)]
    labels = table[answer_column(target)]
    left = table.drop(columns=columns)
    left.insert(2, "label", labels)
    return left


def check_asked(table: pd.DataFrame) -> None:
    """Refuse a table in which no target has two answers to tell apart.

    Raises:
        RequestError: that tells what is known of the first target, and whether the weights are to blame.
    """
    weighs = table.weight > 0
    answers = answers_of(table[weighs])
    if _has_two(answers):
        return
    first, known = answers.targets[0], answers.classes[0]
    found = ", ".join(map(readable, known)) or "nothing"
    some = "" if weighs.all() else f" with a weight above 0, {weighs.sum():,} of {len(table):,}"
    todo = (
        "weigh more of them above 0, or leave data.weight out"
        if _has_two(answers_of(table))
        else f"at least one needs two, such as {YES_NO[0]} and {YES_NO[1]}"
    )
    raise RequestError(
        f"no target has two answers among the usable samples{some} (of {first!r} is known: {found}); {todo}"
    )


def _has_two(answers: Answers) -> bool:
    """Whether any target has two answers to tell apart."""
    return any(size > 1 for size in answers.sizes)
