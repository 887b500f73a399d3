"""What inner folds choose, and how the chosen compare."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tasks.core.heads import Grid
from tasks.core.metrics import Drawn, differences, intervals
from tasks.core.splits import SplitSpec

DIFFERENCES = ("split", "first", "second", "metric", "difference", "low", "high", "real")
"""Columns of differences.csv."""
ALL_PAIRS = 30
"""So many names are compared each with each; of more, each with the chosen one."""


def choose_head(stories: Sequence[Mapping[str, Any]]) -> int:
    """Number of the head with the lowest Brier score on the inner folds.

    Of equals the first; where no folds could be made, the middle one.

    Args:
        stories: what each head's file tells of it.
    """
    scores = [story["inner_brier"] for story in stories]
    if None in scores:
        return len(scores) // 2
    return min(range(len(scores)), key=lambda number: _or_worst(scores[number]))


def choose_name(means: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Choose among experiments by their inner folds on the first split; test scores are not looked at.

    Of equals the first, so too where no folds could be made.
    """
    first = [row for row in means if row["split"] == means[0]["split"]]
    return min(first, key=lambda row: _or_worst(row["inner_brier"]))


def find_chosen(
    means: Sequence[Mapping[str, Any]], grids: Sequence[Grid], splits: Sequence[SplitSpec]
) -> tuple[Mapping[str, Any], Grid, SplitSpec]:
    """Find what `choose_name` chooses: its row, the experiment, and the split on which it was chosen."""
    best = choose_name(means)
    [grid] = [each for each in grids if each.name == best["experiment"]]
    [spec] = [each for each in splits if each.name == best["split"]]
    return best, grid, spec


def rows_of_chosen(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of the rows of heads those that the inner folds chose of an experiment and split, one for each seed."""
    wanted = (best["experiment"], best["split"], True)
    return [row for row in rows if (row["experiment"], row["split"], row["chosen"]) == wanted]


def _or_worst(brier: float | None) -> float:
    """A score that is not known is beaten by any that is."""
    return math.inf if brier is None or math.isnan(brier) else brier


def compare(scored: Mapping[str, dict[str, Drawn]], chosen: str) -> list[dict[str, Any]]:
    """Differences between experiments on the same test parts, under the same draws.

    Args:
        scored: name -> metric -> score and draws, of one split.
        chosen: one of the names.

    Returns:
        Rows of first, second, metric, difference (first less second), low, high, and whether it is real:
        whether the 95 % interval leaves nought out. Of one group alone no draw can tell that.
    """
    pairs = combinations(scored, 2) if len(scored) <= ALL_PAIRS else ((chosen, name) for name in scored)
    rows = []
    for first, second in pairs:
        if first != second:
            for metric, found in differences(scored[first], scored[second]).items():
                told = {"first": first, "second": second, "metric": metric}
                rows.append(told | {"difference": found.value, "low": found.low, "high": found.high})
                several = len(scored[first][metric].groups) > 1
                rows[-1]["real"] = several and (found.low > 0 or found.high < 0)
    return rows


def columns(scored: dict[str, Drawn]) -> dict[str, float]:
    """Spell scores as columns: `accuracy`, `accuracy_low`, `accuracy_high`, and so on."""
    spelled: dict[str, float] = {}
    for metric, found in intervals(scored).items():
        name = metric.replace(" ", "_")
        spelled |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return spelled
