"""Samples to look at, of several targets: answers that are suspected, and those that heads got most wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.core.heads import HeadFile
from tasks.core.label_errors import suspected_errors
from tasks.core.pictures import PICTURES, Album, Suspect, Wrong, list_suspects, most_wrong, show_suspects
from tasks.core.said import of_test_rows, of_unseen_rows
from tasks.core.targets import about

LEAST = 6
"""Pictures of each kind that every target has, however many targets there are."""


@dataclass(frozen=True)
class Looks:
    """What there is to look at of one target.

    Attributes:
        target: its name.
        looked_at: the samples of which a head speaks that had not seen them.
        listed: the suspected answers among these, as `list_suspects` lists them.
        suspects: the first of these, with their pictures.
        wrong: the test samples that the heads got most wrong.
    """

    target: str
    looked_at: int
    listed: pd.DataFrame
    suspects: list[Suspect]
    wrong: list[Wrong]

    @property
    def suspected(self) -> int:
        """How many answers are suspected."""
        return len(self.listed)


def looks_of(heads: Mapping[str, Sequence[HeadFile]], table: pd.DataFrame, album: Album) -> list[Looks]:
    """Find the samples to look at.

    Args:
        heads: target -> what was chosen for it, for each seed.
        table: all samples.
        album: where pictures are made.
    """
    most, looks = max(LEAST, PICTURES // len(heads)), []
    for target, files in heads.items():
        mine = about(table, target)
        said = of_unseen_rows(files, mine)
        listed = list_suspects(said, suspected_errors(said.labels, said.proba))
        looks.append(
            Looks(
                target,
                len(said.digests),
                listed,
                show_suspects(listed, album, most),
                most_wrong(of_test_rows(files, mine), album, most),
            )
        )
    return looks


def label_errors(looks: Sequence[Looks]) -> pd.DataFrame:
    """Put the suspected answers to all targets in one table, target by target."""
    return pd.concat([each.listed.assign(target=each.target) for each in looks], ignore_index=True)[
        ["target", *looks[0].listed.columns]
    ]
