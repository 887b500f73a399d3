"""Stage of several targets: what the inner folds chose is scored on the test part, and joint held against separate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_scores import (
    ANSWER_METRICS,
    HEADLINE,
    Question,
    best_threshold,
    draw_targets,
    less,
    questions_of,
)
from tasks.core.answers import MACRO
from tasks.core.artifacts import HEADS
from tasks.core.calibration import expected_calibration_error
from tasks.core.heads import HeadFile, load_heads, stories_in
from tasks.core.hyper import JOINT
from tasks.core.metrics import Drawn, Draws, TestPart, draw_groups, mean_scores
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import choose_name, columns
from tasks.core.tables import read_table
from tasks.core.targets import answer_column
from tasks.references import AnswerHeads, AnswerScores, Heads, Samples, Shelf

FACTS = (
    "converged",
    "stopped",
    "epochs",
    "gradient_norm",
    "temperature",
    "inner_brier",
    "inner_log_loss",
    "inner_accuracy",
)

Scored = list[dict[str, dict[str, Drawn]]]
"""For each seed: target, or "macro average" and "micro average" -> metric -> score and draws."""


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
        draws = draw_groups(groups_of(table, spec).tolist())
        bench = _Bench(spec.name, table, draws, {n: each for each in trained for n in _grids(each)}, pairs)
        bench.score(result)
    return result


def _grids(each: AnswerHeads) -> Mapping[str, list[str]]:
    return next(iter(each.heads.values())).grids


@dataclass(frozen=True)
class _Chosen:
    """What was chosen of an experiment on one seed: target -> key of its head."""

    seed: int
    keys: dict[str, str]
    brier: float | None


@dataclass
class _Bench:
    """One split's heads, asked about and scored."""

    split: str
    table: pd.DataFrame
    draws: Draws
    grids: dict[str, AnswerHeads]
    pairs: list[tuple[str, str]]

    @cached_property
    def place(self) -> pd.Index:
        """Digest -> row of the table."""
        place: pd.Index = pd.Index(self.table.digest)
        return place

    def score(self, result: AnswerScores) -> None:
        """Score every experiment; what joint training changes; and every width on the inner folds."""
        scored: dict[str, Scored] = {}
        means = []
        for name, each in self.grids.items():
            chosen = [self._choose(name, number) for number in range(self._seeds(each))]
            scored[name] = [self._scored(each, number, one.keys) for number, one in enumerate(chosen)]
            result.splits.extend(self._rows(name, chosen, scored[name]))
            means.extend(self._means(name, chosen, scored[name]))
        result.means.extend(means)
        best = choose_name([row for row in result.means if row["target"] == MACRO])["experiment"]
        for name in scored:
            if name != best:
                told = {"split": self.split, "first": name, "second": best}
                result.differences.extend(told | row for row in _apart(scored[name], scored[best], MACRO))
        for joint, separate in self.pairs:
            told = {"split": self.split, "joint": joint, "separate": separate}
            for target in scored[joint][0]:
                rows = _apart(scored[joint], scored[separate], target)
                result.gains.extend(told | {"target": target} | row for row in rows)
            result.widths.extend(told | row for row in self._widths(joint, separate))

    def _seeds(self, each: AnswerHeads) -> int:
        return len(self._shelves(next(iter(each.heads.values()))))

    def _shelves(self, heads: Heads) -> list[Shelf]:
        return [shelf for shelf in heads.shelves if shelf.split == self.split]

    def _stories(self, each: AnswerHeads, number: int) -> dict[str, dict[str, dict[str, Any]]]:
        """Target -> key -> story."""
        told = {}
        for target, heads in each.heads.items():
            shelf = self._shelves(heads)[number]
            files = [stories_in(path) for path in shelf.paths()]
            told[target] = {key: files[at][key] for key, at in shelf.heads.items()}
        return told

    def _choose(self, name: str, number: int, hidden: Sequence[int] | None = None) -> _Chosen:
        """Choose by the inner folds, of one width if asked for: one network for all targets, or a head for each."""
        each = self.grids[name]
        stories = self._stories(each, number)
        keys = [
            key
            for key in _grids(each)[name]
            if hidden is None or next(iter(stories.values()))[key]["hyper"][1].get("hidden") == list(hidden)
        ]
        briers = {target: [told[key]["inner_brier"] for key in keys] for target, told in stories.items()}
        if any(brier is None for each_target in briers.values() for brier in each_target):
            middle = keys[len(keys) // 2]
            return _Chosen(self._seed(each, number), dict.fromkeys(stories, middle), None)
        if any(told[keys[0]]["hyper"][0] in JOINT for told in stories.values()):
            together = np.mean(list(briers.values()), axis=0)
            at = dict.fromkeys(stories, int(np.argmin(together)))
        else:
            at = {target: int(np.argmin(scores)) for target, scores in briers.items()}
        brier = float(np.mean([briers[target][n] for target, n in at.items()]))
        return _Chosen(self._seed(each, number), {t: keys[n] for t, n in at.items()}, brier)

    def _seed(self, each: AnswerHeads, number: int) -> int:
        return self._shelves(next(iter(each.heads.values())))[number].seed

    def _file(self, each: AnswerHeads, target: str, number: int, key: str) -> HeadFile:
        shelf = self._shelves(each.heads[target])[number]
        return load_heads(shelf.paths()[shelf.heads[key]])[key]

    def _scored(
        self, each: AnswerHeads, number: int, keys: Mapping[str, str], *, inner: bool = False
    ) -> dict[str, dict[str, Drawn]]:
        asked = {}
        for target, key in keys.items():
            file = self._file(each, target, number, key)
            asked[target] = self._questions(target, file, inner=inner)
        return draw_targets(asked, self.draws, micro=not inner)

    def _questions(self, target: str, file: HeadFile, *, inner: bool) -> list[Question]:
        """What a head says of its test rows, or of its training rows by fits that did not see them."""
        unseen = self._part(target, file, file.inner, file.train_rows) if file.inner is not None else None
        if inner and unseen is not None:
            return questions_of(unseen, None)
        threshold = best_threshold(unseen.log_proba, unseen.labels) if unseen is not None else None
        return questions_of(self._part(target, file, file.log_proba, file.test_rows), threshold)

    def _part(self, target: str, file: HeadFile, said: np.ndarray, digests: Sequence[str]) -> TestPart:
        rows = self.place.get_indexer(pd.Index(digests))
        numbers = {name: number for number, name in enumerate(file.story["classes"])}
        labels = self.table[answer_column(target)].iloc[rows].map(numbers).to_numpy()
        return TestPart(rows, labels, self.table.weight.iloc[rows].to_numpy(), said)

    def _rows(self, name: str, chosen: Sequence[_Chosen], scored: Scored) -> list[dict[str, Any]]:
        each, rows = self.grids[name], []
        for number, (one, scores) in enumerate(zip(chosen, scored, strict=True)):
            for target, stories in self._stories(each, number).items():
                shelf = self._shelves(each.heads[target])[number]
                for key in _grids(each)[name]:
                    rows.append(self._row(name, target, one, stories[key]))
                    rows[-1] |= {
                        "key": key,
                        "file": f"{HEADS}/{shelf.folder.name}/{shelf.files[shelf.heads[key]]}",
                    }
                    if one.keys[target] == key:
                        rows[-1] |= {"chosen": True} | columns(scores[target])
        return rows

    def _row(self, name: str, target: str, one: _Chosen, story: Mapping[str, Any]) -> dict[str, Any]:
        kind, hyper = story["hyper"]
        spelled = {
            field: "x".join(map(str, value)) if field == "hidden" else value
            for field, value in hyper.items()
            if field not in ("seed", "factors")
        }
        return {
            "experiment": name,
            "target": target,
            "split": self.split,
            "seed": one.seed,
            "head": kind,
            **spelled,
            **({"first_seed": hyper["seed"]} if "seed" in hyper else {}),
            "train": story["train"],
            "test": story["test"],
            **{fact: story.get(fact) for fact in FACTS},
            "chosen": False,
        }

    def _means(self, name: str, chosen: Sequence[_Chosen], scored: Scored) -> list[dict[str, Any]]:
        briers = [one.brier for one in chosen if one.brier is not None]
        known = {
            target: [story[one.keys[target]]["test"] for story, one in zip(each, chosen, strict=True)]
            for target, each in self._by_target(name, len(chosen)).items()
        }
        total = float(np.mean(np.sum(list(known.values()), axis=0)))
        return [
            {
                "experiment": name,
                "split": self.split,
                "target": target,
                "seeds": len(chosen),
                "known": float(np.mean(known[target])) if target in known else total,
                "inner_brier": float(np.mean(briers)) if briers else None,
                "calibration_error": self._calibration(name, target, chosen) if target in known else None,
                **columns(mean_scores([seed[target] for seed in scored])),
                **_spread([seed[target] for seed in scored]),
            }
            for target in scored[0]
        ]

    def _calibration(self, name: str, target: str, chosen: Sequence[_Chosen]) -> float:
        """The expected calibration error on the test part, the mean over the seeds."""
        errors = []
        for number, one in enumerate(chosen):
            file = self._file(self.grids[name], target, number, one.keys[target])
            part = self._part(target, file, file.log_proba, file.test_rows)
            errors.append(expected_calibration_error(part.log_proba, part.labels, np.ones(len(part.labels))))
        return float(np.mean(errors))

    def _by_target(self, name: str, seeds: int) -> dict[str, list[dict[str, dict[str, Any]]]]:
        """Target -> for each seed key -> story."""
        told = [self._stories(self.grids[name], number) for number in range(seeds)]
        return {target: [each[target] for each in told] for target in told[0]}

    def _widths(self, joint: str, separate: str) -> list[dict[str, Any]]:
        """What inner folds say of joint and separate networks of each width."""
        each = self.grids[joint]
        of_seeds = [of for n in range(self._seeds(each)) for of in self._stories(each, n).values()]
        stories = of_seeds[0]
        if any("hidden" not in story["hyper"][1] for story in stories.values()):
            return []  # layers have the widths that they have
        if any(story["inner_brier"] is None for of in of_seeds for story in of.values()):
            return []  # without folds there is nothing to judge widths by but the test part
        widths = list(
            dict.fromkeys(
                tuple(stories[key]["hyper"][1]["hidden"]) for key in _grids(self.grids[joint])[joint]
            )
        )
        rows = []
        for width in widths:
            scored = {
                name: [
                    self._scored(self.grids[name], n, self._choose(name, n, width).keys, inner=True)
                    for n in range(self._seeds(self.grids[name]))
                ]
                for name in (joint, separate)
            }
            values = {
                name: float(np.mean([seed[MACRO][HEADLINE].value for seed in each]))
                for name, each in scored.items()
            }
            rows.append(
                {
                    "width": "x".join(map(str, width)),
                    "metric": HEADLINE,
                    "joint_value": values[joint],
                    "separate_value": values[separate],
                    **_difference(scored[joint], scored[separate], MACRO, HEADLINE),
                }
            )
        return rows


def _spread(scores: Sequence[Mapping[str, Drawn]]) -> dict[str, float]:
    """What the seeds did."""
    if len(scores) < 2:
        return {}
    return {
        f"{metric.replace(' ', '_')}_sd": float(np.std([each[metric].value for each in scores], ddof=1))
        for metric in ANSWER_METRICS
    }


def _difference(ones: Scored, others: Scored, target: str, metric: str) -> dict[str, Any]:
    """How far one experiment's score lies above another's; of one group alone no draw tells whether that is real."""
    mine = [seed[target][metric] for seed in ones]
    found = less(mine, [seed[target][metric] for seed in others])
    several = len(np.unique(np.concatenate([each.groups for each in mine]))) > 1
    real = bool(several and (found.low > 0 or found.high < 0))
    return {"difference": found.value, "low": found.low, "high": found.high, "real": real}


def _apart(ones: Scored, others: Scored, target: str) -> list[dict[str, Any]]:
    """Each metric's difference on a target, a row each."""
    return [{"metric": metric} | _difference(ones, others, target, metric) for metric in ANSWER_METRICS]
