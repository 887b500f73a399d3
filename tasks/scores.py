"""Stage 4: every head's predictions of its test part are scored, once, with intervals."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import cached_stage
from tasks.core import versions
from tasks.core.heads import HeadFile, load_head
from tasks.core.metrics import Score, TestPart, group_counts, score
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.tables import read_table
from tasks.references import Head, Heads, Samples, Scores


def _identity(inputs: dict[str, Any]) -> object:
    heads = [
        [each.experiment, [[h.split, h.seed, h.digest] for h in each.heads]] for each in inputs["trained"]
    ]
    splits = [asdict(spec) for spec in inputs["splits"]]
    return [versions.SCORER, inputs["samples"].identity, splits, heads]


@cached_stage("scores", "{study}: score", _identity)
def score_all(study: str, samples: Samples, splits: tuple[SplitSpec, ...], trained: list[Heads]) -> Scores:
    """Score each experiment on each split, and on the mean of a split's seeds."""
    table = read_table(samples.table)
    groups = {spec.name: groups_of(table, spec).tolist() for spec in splits}
    counts = {name: group_counts(ids) for name, ids in groups.items()}
    result = Scores(splits=[], means=[])
    for each in trained:
        for split, heads in groupby(each.heads, key=lambda head: head.split):
            _score_split(result, each.experiment, split, list(heads), table, counts[split], groups[split])
    return result


def _score_split(
    result: Scores,
    experiment: str,
    split: str,
    heads: list[Head],
    table: pd.DataFrame,
    counts: np.ndarray,
    groups: list[str],
) -> None:
    """Add a row for each seed, and one for their mean."""
    files = [load_head(head.path) for head in heads]
    parts = [_test_part(file, table) for file in files]
    for head, file, part in zip(heads, files, parts, strict=True):
        result.splits.append(
            {
                "experiment": experiment,
                "split": split,
                "seed": head.seed,
                "train": file.story["train"],
                "test": len(part.rows),
                "strength": file.story["strength"],
                "converged": file.story["converged"],
                "inner_brier": file.story["inner_brier"],
                "head": head.path.stem,
                **_columns(score([part], counts, groups)),
            }
        )
    inner = [file.story["inner_brier"] for file in files if file.story["inner_brier"] is not None]
    result.means.append(
        {
            "experiment": experiment,
            "split": split,
            "seeds": len(heads),
            "test": sum(len(part.rows) for part in parts) / len(parts),
            "inner_brier": float(np.mean(inner)) if inner else None,
            **_columns(score(parts, counts, groups)),
        }
    )


def _test_part(file: HeadFile, table: pd.DataFrame) -> TestPart:
    rows = pd.Index(table.digest).get_indexer(file.test_rows)
    numbers = {name: number for number, name in enumerate(file.story["classes"])}
    return TestPart(
        rows=rows,
        labels=table.label.iloc[rows].map(numbers).to_numpy(),
        weights=table.weight.iloc[rows].to_numpy(),
        log_proba=file.log_proba,
    )


def _columns(scores: dict[str, Score]) -> dict[str, float]:
    """Spell scores as columns: `accuracy`, `accuracy_low`, `accuracy_high`, and so on."""
    spelled: dict[str, float] = {}
    for metric, found in scores.items():
        name = metric.replace(" ", "_")
        spelled |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return spelled
