"""What training a head gives, whatever the head: the predictor, and what fits without each fold say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.core.predictors import Predictor

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""(training rows, held-out rows) by number; each row is held out once and trained on otherwise."""

FOLDS = 5
"""So many inner folds a training part is cut into, where it has enough of each class."""

Fact = str | float | bool | None


@dataclass(frozen=True)
class Fit:
    """A trained head.

    Attributes:
        predictor: trained on all rows, takes raw features.
        inner: (N, C) log probabilities of each row by a fit that did not see its fold; None without folds.
        converged: whether training ended where it should, the fits on the folds included.
        facts: what else is worth a column of results.csv, by name.
    """

    predictor: Predictor
    inner: np.ndarray | None
    converged: bool = True
    facts: Mapping[str, Fact] = field(default_factory=dict)
