"""Would more labels help? The chosen head on nested shares of its training part; nothing is chosen by it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_scores import less
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, head_key, load_heads
from tasks.core.metrics import Drawn, TestPart, draw_groups, draw_scores, intervals, mean_scores
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import find_chosen, rows_of_chosen
from tasks.core.stored import Stored, open_stored
from tasks.core.summary import with_ends
from tasks.core.tables import read_table
from tasks.core.trials import labelled, parts_of
from tasks.progress import Progress
from tasks.references import Curve, Features, Gain, Point, Samples, Scores


def _identity(inputs: dict[str, Any]) -> object:
    scores: Scores = inputs["scores"]
    best, grid, spec = find_chosen(scores.means, inputs["grids"], inputs["splits"])
    sets = grid.inputs.sets(inputs["features"][grid.inputs.backbone].sets)
    return [
        versions.CURVE,
        versions.SCORER,
        inputs["samples"].identity,
        grid.name,
        grid.inputs.identity(sets),
        asdict(spec),
        [[row["seed"], row["key"], row["file"]] for row in rows_of_chosen(scores.splits, best)],
        inputs["metric"],
    ]


@stage("curve", _identity)
def learning_curve(
    study: str,
    samples: Samples,
    features: dict[str, Features],
    grids: list[Grid],
    splits: tuple[SplitSpec, ...],
    scores: Scores,
    metric: str,
    artifacts: Artifacts,
) -> Curve:
    """Train the chosen experiment's heads on ever smaller shares of their training parts, and score them alike.

    Only on the split by which it was chosen. A share that is too small for one of its seeds is left out; the
    curve has no points at all where every share is, or where the features do not fit in memory.
    """
    best, grid, spec = find_chosen(scores.means, grids, splits)
    told = Curve(experiment=grid.name, split=spec.name, metric=metric, points=[], gain=None)
    if grid.is_network:  # the verdict tells of shares
        return told
    table = read_table(samples.table)
    stored = _stored(grid, features[grid.inputs.backbone], labelled(table), artifacts)
    if not stored.fits():
        return told
    heads = rows_of_chosen(scores.splits, best)
    points, gain, train = _of_less(study, table, stored, grid, spec, heads, metric, artifacts)
    if points:
        points.append(_of_all(best, train, metric))
    return told.model_copy(update={"points": points, "gain": gain})


def _stored(grid: Grid, features: Features, known: pd.DataFrame, artifacts: Artifacts) -> Stored:
    sets = grid.inputs.sets(features.sets)
    return open_stored(sets, len(grid.inputs.taps), known.digest.tolist(), artifacts)


def _of_less(
    study: str,
    table: pd.DataFrame,
    stored: Stored,
    grid: Grid,
    spec: SplitSpec,
    heads: Sequence[Mapping[str, Any]],
    metric: str,
    artifacts: Artifacts,
) -> tuple[list[Point], Gain | None, float]:
    """Score heads that learn from less than there is, the smallest share first.

    Returns:
        Their points, what those gain that learnt from all of it, and how many samples that is.
    """
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.curve import Known, Lesson, learn, shorter

    rows, hypers = labelled(table), {head_key(hyper): hyper for hyper in grid.hypers}
    names, places = sorted(rows.label.unique()), pd.Index(table.digest).get_indexer(pd.Index(rows.digest))
    labels = rows.label.map({name: number for number, name in enumerate(names)}).to_numpy()
    known = Known(labels, rows.weight.to_numpy(), groups_of(rows, spec), len(stored.views))
    whole = [
        Lesson(hypers[head["key"]], ~part.test & (known.weights > 0), part.test, part.seed)
        for part, head in zip(parts_of(rows, [spec]), heads, strict=True)
    ]
    shares = shorter(known, whole)
    learnt = float(np.mean([lesson.taken.sum() for lesson in whole]))
    if not shares:
        return [], None, learnt
    features, draws = stored.in_memory(), draw_groups(groups_of(table, spec).tolist())

    def score(lesson: Lesson, said: np.ndarray) -> dict[str, Drawn]:
        asked = lesson.asked
        return draw_scores(TestPart(places[asked], labels[asked], known.weights[asked], said), draws)

    points: list[Point] = []
    drawn: list[dict[str, Drawn]] = []
    with Progress(f"{study}: learning curve", len(shares) * len(whole)) as progress:
        for number, (share, lessons) in enumerate(shares.items()):
            drawn = []
            for lesson in lessons:
                drawn.append(score(lesson, learn(known, features, lesson, classes=len(names))))
                progress.advance_to(number * len(whole) + len(drawn))
            found = intervals(mean_scores(drawn))[metric]
            train = float(np.mean([lesson.taken.sum() for lesson in lessons]))
            points.append(Point.of(share, train, found.value, found.low, found.high))
    all_said = [load_heads(artifacts.root / head["file"])[head["key"]].log_proba for head in heads]
    most = [score(lesson, said)[metric] for lesson, said in zip(whole, all_said, strict=True)]
    gained = less(most, [each[metric] for each in drawn])
    return points, Gain.of(gained.value, gained.low, gained.high), learnt


def _of_all(best: Mapping[str, Any], train: float, metric: str) -> Point:
    """The score that is known already: of the chosen heads, which learnt from all of their training parts."""
    return Point(share=1.0, train=train, **with_ends(best, metric))
