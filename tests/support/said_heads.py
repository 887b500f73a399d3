"""Made-up heads that say given probabilities, and the table of samples that they say them of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.heads import HeadFile
from tasks.core.predictors import Linear

CLASSES = ["cat", "dog", "emu"]


def table_of(labels: Sequence[str], folder: Path = Path("/data")) -> pd.DataFrame:
    """Samples with these labels; a sample's digest and file are its number."""
    return pd.DataFrame(
        {
            "digest": [digest_of(row) for row in range(len(labels))],
            "path": [str(folder / f"{row}.png") for row in range(len(labels))],
            "label": labels,
        }
    )


def digest_of(row: int) -> str:
    """The digest of the sample of that number."""
    return f"{row:040x}"


def head_of(
    rows: Sequence[int],
    proba: np.ndarray,
    temperature: float = 1.0,
    *,
    training: Sequence[int] = (),
    inner: np.ndarray | None = None,
) -> HeadFile:
    """A head that says `proba` of its test rows and, by fits on inner folds, `inner` of its training rows."""
    return HeadFile(
        predictor=Linear(np.zeros((3, 1)), np.zeros(3)),
        log_proba=np.log(proba),
        test_rows=[digest_of(row) for row in rows],
        inner=None if inner is None else np.log(inner),
        train_rows=[digest_of(row) for row in training],
        story={"classes": CLASSES, "temperature": temperature},
    )


def random_study(seed: int, splits: int = 3, n: int = 40) -> tuple[list[HeadFile], pd.DataFrame]:
    """Heads of several splits that say anything of some of n samples, most with inner folds."""
    rng = np.random.default_rng(seed)
    table = table_of(rng.choice(CLASSES, n).tolist())
    heads = []
    for split in range(splits):
        rows = rng.permutation(n)
        test, training = np.split(rows, [rng.integers(5, n - 5)])
        said, inner = (rng.dirichlet(np.ones(3), len(part)) for part in (test, training))
        folds = inner if split else None
        heads.append(head_of(test.tolist(), said, training=training.tolist(), inner=folds))
    return heads, table
