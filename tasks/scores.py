"""Stage 4: what the inner folds chose is scored on the test part, once, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.artifacts import HEADS
from tasks.core.class_scores import draw_classes
from tasks.core.heads import HeadFile, load_heads, stories_in
from tasks.core.metrics import Drawn, Draws, TestPart, draw_groups, draw_scores, mean_scores
from tasks.core.operating import draw_operating, threshold_for
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import choose_head, choose_name, columns, compare
from tasks.core.tables import read_table
from tasks.core.wishes import Wish
from tasks.references import Heads, Samples, Scores, Shelf

FACTS = ("converged", "stopped", "gradient_norm", "objective", "epochs", "seconds", "temperature")
INNER = ("inner_brier", "inner_log_loss", "inner_accuracy")


def _identity(inputs: dict[str, Any]) -> object:
    trained: Sequence[Heads] = inputs["trained"]
    return [
        versions.SCORER,
        inputs["samples"].identity,
        [asdict(spec) for spec in inputs["splits"]],
        [asdict(wish) for wish in inputs["wishes"]],
        [[each.grids, [[s.split, s.seed, s.files, s.heads] for s in each.shelves]] for each in trained],
    ]


@stage("scores", _identity)
def score_all(
    study: str,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    wishes: tuple[Wish, ...],
    trained: list[Heads],
) -> Scores:
    """Tell what the inner folds say of each head, and score those that they choose."""
    table = read_table(samples.table)
    result = Scores(splits=[], means=[], differences=[], operating=[], classes=[])
    chosen: dict[str, dict[str, list[HeadFile]]] = {spec.name: {} for spec in splits}
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in trained:
        for shelf in each.shelves:
            stories = _stories(shelf)
            best = {name: keys[choose_head([stories[k] for k in keys])] for name, keys in each.grids.items()}
            heads = _loaded(shelf, set(best.values()))
            for name, keys in each.grids.items():
                rows = {key: _row(name, shelf, key, stories[key]) for key in keys}
                rows[best[name]]["chosen"] = True
                result.splits.extend(rows.values())
                chosen[shelf.split].setdefault(name, []).append(heads[best[name]])
                places.setdefault((shelf.split, name), []).append(rows[best[name]])
    for spec in splits:
        draws = draw_groups(groups_of(table, spec).tolist())
        _score_split(result, spec.name, chosen[spec.name], places, table, draws, wishes)
    return result


def _score_split(
    result: Scores,
    split: str,
    chosen: Mapping[str, list[HeadFile]],
    places: Mapping[tuple[str, str], list[dict[str, Any]]],
    table: pd.DataFrame,
    draws: Draws,
    wishes: Sequence[Wish],
) -> None:
    """Score what was chosen on one split: each seed, their mean, and how the experiments differ."""
    scored: dict[str, dict[str, Drawn]] = {}
    for name, files in chosen.items():
        parts = [_part(file.log_proba, file.test_rows, file, table) for file in files]
        drawn = [draw_scores(part, draws) for part in parts]
        for row, each in zip(places[split, name], drawn, strict=True):
            row.update(columns(each))
        scored[name] = mean_scores(drawn)
        result.means.append(_mean_row(name, split, files, drawn) | columns(scored[name]))
        result.operating.extend(
            {"experiment": name, "split": split} | row for row in _operate(files, parts, table, draws, wishes)
        )
    best = choose_name(result.means)
    result.differences.extend({"split": split} | row for row in compare(scored, best["experiment"]))
    if best["split"] == split:
        result.classes.extend(_by_class(chosen[best["experiment"]], table, draws))


def _row(name: str, shelf: Shelf, key: str, story: Mapping[str, Any]) -> dict[str, Any]:
    kind, hyper = story["hyper"]
    spelled = {field: "x".join(map(str, v)) if isinstance(v, list) else v for field, v in hyper.items()}
    return {
        "experiment": name,
        "split": shelf.split,
        "seed": shelf.seed,
        "head": kind,
        **{field: value for field, value in spelled.items() if field != "seed"},
        **({"first_seed": spelled["seed"]} if "seed" in spelled else {}),
        "train": story["train"],
        "test": story["test"],
        **{fact: story.get(fact) for fact in (*FACTS, *INNER)},
        "key": key,
        "file": f"{HEADS}/{shelf.folder.name}/{shelf.path(key).name}",
        "chosen": False,
    }


def _mean_row(
    name: str, split: str, files: Sequence[HeadFile], drawn: Sequence[dict[str, Drawn]]
) -> dict[str, Any]:
    inner = [file.story["inner_brier"] for file in files if file.story["inner_brier"] is not None]
    spread = {
        f"{metric.replace(' ', '_')}_sd": float(np.std([each[metric].value for each in drawn], ddof=1))
        for metric in drawn[0]
        if len(drawn) > 1
    }
    return {
        "experiment": name,
        "split": split,
        "seeds": len(files),
        "test": sum(len(file.test_rows) for file in files) / len(files),
        "inner_brier": float(np.mean(inner)) if inner else None,
        **spread,
    }


def _by_class(files: Sequence[HeadFile], table: pd.DataFrame, draws: Draws) -> list[dict[str, Any]]:
    """Score each class by itself, as the mean over the seeds; "test" is how many samples a seed tests of it."""
    parts = [_part(file.log_proba, file.test_rows, file, table) for file in files]
    drawn = [draw_classes(part, draws) for part in parts]
    return [
        {"class": name, "test": float(np.mean([(part.labels == number).sum() for part in parts]))}
        | columns(mean_scores([each[number] for each in drawn]))
        for number, name in enumerate(files[0].story["classes"])
    ]


def _operate(
    files: Sequence[HeadFile],
    parts: Sequence[TestPart],
    table: pd.DataFrame,
    draws: Draws,
    wishes: Sequence[Wish],
) -> list[dict[str, Any]]:
    """Choose a threshold for each wish on the inner folds, and tell what it gives on the test part."""
    rows = []
    for wish in wishes:
        column = wish.column(files[0].story["classes"])
        thresholds = [_threshold(wish, column, file, table) for file in files]
        told: dict[str, Any] = {
            "class": files[0].story["classes"][column],
            "wanted": "recall" if wish.recall is not None else "precision",
            "at_least": wish.recall if wish.recall is not None else wish.precision,
            "thresholds": thresholds,
        }
        drawn = [
            draw_operating(part, draws, column, threshold)
            for part, threshold in zip(parts, thresholds, strict=True)
            if threshold is not None
        ]
        rows.append(told | (columns(mean_scores(drawn)) if drawn else {}))
    return rows


def _threshold(wish: Wish, column: int, file: HeadFile, table: pd.DataFrame) -> float | None:
    if file.inner is None:
        return None
    part = _part(file.inner, file.train_rows, file, table)
    return threshold_for(wish, column, part.log_proba, part.labels)


def _stories(shelf: Shelf) -> dict[str, dict[str, Any]]:
    """Each head's story, from the file that the shelf names: after two runs at once another may hold it, too."""
    files = [stories_in(path) for path in shelf.paths()]
    return {key: files[number][key] for key, number in shelf.heads.items()}


def _loaded(shelf: Shelf, keys: set[str]) -> dict[str, HeadFile]:
    """Load some heads; of their files one is held at a time."""
    heads: dict[str, HeadFile] = {}
    for number, path in enumerate(shelf.paths()):
        wanted = [key for key in keys if shelf.heads[key] == number]
        found = load_heads(path) if wanted else {}
        heads |= {key: found[key] for key in wanted}
    return heads


def _part(log_proba: np.ndarray, digests: Sequence[str], file: HeadFile, table: pd.DataFrame) -> TestPart:
    rows = pd.Index(table.digest).get_indexer(pd.Index(digests))
    numbers = {name: number for number, name in enumerate(file.story["classes"])}
    return TestPart(
        rows=rows,
        labels=table.label.iloc[rows].map(numbers).to_numpy(),
        weights=table.weight.iloc[rows].to_numpy(),
        log_proba=log_proba,
    )
