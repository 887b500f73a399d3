"""What the chosen heads say of each sample that they had not seen, as a mean over the splits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.heads import HeadFile


@dataclass(frozen=True)
class Said:
    """Probabilities of samples, and what the samples are said to be.

    Attributes:
        classes: C names.
        digests: (N,) each sample once, sorted.
        paths: (N,) their files.
        labels: (N,) int.
        proba: (N, C), the mean over all heads that say something of the sample.
    """

    classes: list[str]
    digests: list[str]
    paths: list[str]
    labels: np.ndarray
    proba: np.ndarray


def of_test_rows(files: Sequence[HeadFile], table: pd.DataFrame) -> Said:
    """Average what is said of test rows."""
    return _mean(files, [(file.test_rows, file.log_proba) for file in files], table)


def of_unseen_rows(files: Sequence[HeadFile], table: pd.DataFrame) -> Said:
    """Average what is said of test rows, and of training rows by the fits on inner folds that did not see them."""
    inner = [(file.train_rows, file.inner) for file in files if file.inner is not None]
    return _mean(files, [*((file.test_rows, file.log_proba) for file in files), *inner], table)


def _mean(
    files: Sequence[HeadFile], parts: Iterable[tuple[list[str], np.ndarray]], table: pd.DataFrame
) -> Said:
    classes: list[str] = files[0].story["classes"]
    place = pd.Index(table.digest)
    total, count = np.zeros((len(table), len(classes))), np.zeros(len(table))
    for digests, log_proba in parts:
        rows = place.get_indexer(pd.Index(digests))  # none stands in a part twice
        total[rows] += np.exp(log_proba)
        count[rows] += 1
    rows = np.flatnonzero(count)
    rows = rows[np.argsort(table.digest.to_numpy()[rows], kind="stable")]
    known = table.iloc[rows]
    numbers = {name: number for number, name in enumerate(classes)}
    return Said(
        classes=classes,
        digests=known.digest.tolist(),
        paths=known.path.tolist(),
        labels=known.label.map(numbers).to_numpy(),
        proba=total[rows] / count[rows, None],
    )
