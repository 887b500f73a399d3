"""Stage of several targets: what the inner folds chose is scored on the test part, and joint held against separate."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_bench import Bench, PartHeads, SplitHeads, apart, gains, widths
from tasks.core.answers import MACRO
from tasks.core.metrics import draw_groups
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import choose_name
from tasks.core.tables import read_table
from tasks.references import AnswerHeads, AnswerScores, Samples


def _identity(inputs: dict[str, Any]) -> object:
    trained: Sequence[AnswerHeads] = inputs["trained"]
    return [
        [versions.SCORER, versions.ANSWERS],
        inputs["samples"].identity,
        [asdict(spec) for spec in inputs["splits"]],
        inputs["pairs"],
        [
            [name, heads.grids, [[s.split, s.seed, s.files, s.heads] for s in heads.shelves]]
            for each in trained
            for name, heads in each.heads.items()
        ],
    ]


@stage("answer-scores", _identity)
def score_answers(
    study: str,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    pairs: list[tuple[str, str]],
    trained: list[AnswerHeads],
) -> AnswerScores:
    """Score what the inner folds choose, on every target.

    Args:
        study: its name.
        samples: all of them.
        splits: how the answered ones are cut.
        pairs: the names of a joint experiment and of its separate twin.
        trained: heads of all experiments.
    """
    table = read_table(samples.table)
    result = AnswerScores(splits=[], means=[], differences=[], gains=[], widths=[])
    for spec in splits:
        bench = Bench(spec.name, table, draw_groups(groups_of(table, spec).tolist()))
        competing = {name: found for each in trained for name, found in _competing(each, bench).items()}
        for heads in competing.values():
            result.splits.extend(heads.rows())
            result.means.extend(heads.means())
        best = choose_name(result.macro())["experiment"]
        for name, heads in competing.items():
            if name != best:
                told = {"split": spec.name, "first": name, "second": best}
                rows = apart(heads.scored, competing[best].scored, MACRO)
                result.differences.extend(told | row for row in rows)
        for joint, separate in pairs:
            result.gains.extend(gains(competing[joint], competing[separate]))
            result.widths.extend(widths(competing[joint], competing[separate]))
    return result


def _competing(each: AnswerHeads, bench: Bench) -> dict[str, SplitHeads]:
    """Name -> experiment, of heads with the same inputs."""
    shelves = {
        target: [shelf for shelf in heads.shelves if shelf.split == bench.split]
        for target, heads in each.heads.items()
    }
    first = next(iter(each.heads))
    return {
        name: SplitHeads(
            name,
            [
                PartHeads(
                    shelf.seed,
                    keys,
                    {target: {key: of[number].path(key) for key in keys} for target, of in shelves.items()},
                )
                for number, shelf in enumerate(shelves[first])
            ],
            bench,
        )
        for name, keys in each.heads[first].grids.items()
    }
