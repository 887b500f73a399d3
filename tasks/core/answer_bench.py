"""Heads for several targets on the bench: inner folds choose, test parts score, and joint is held against separate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.answer_scores import (
    ANSWER_METRICS,
    HEADLINE,
    Question,
    best_threshold,
    draw_targets,
    less,
    questions_of,
)
from tasks.core.answers import MACRO, MICRO
from tasks.core.artifacts import HEADS
from tasks.core.calibration import expected_calibration_error
from tasks.core.heads import HeadFile, load_heads, stories_in
from tasks.core.hyper import JOINT
from tasks.core.metrics import Drawn, Draws, TestPart, mean_scores
from tasks.core.standings import columns
from tasks.core.targets import answer_column

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

Row = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """What inner folds chose of an experiment on one part.

    Attributes:
        keys: target -> key of its head.
        brier: the mean over targets of the inner Brier score; None without folds.
    """

    keys: dict[str, str]
    brier: float | None


@dataclass(frozen=True)
class PartHeads:
    """An experiment's heads for one part.

    Attributes:
        seed: of the split.
        keys: of the heads, which are the same for every target.
        files: target -> key -> where the head lies.
    """

    seed: int
    keys: list[str]
    files: dict[str, dict[str, Path]]

    @cached_property
    def stories(self) -> dict[str, dict[str, Row]]:
        """Target -> key -> what its file tells."""
        told = {path: stories_in(path) for files in self.files.values() for path in files.values()}
        return {
            target: {key: told[path][key] for key, path in files.items()}
            for target, files in self.files.items()
        }

    @cached_property
    def is_joint(self) -> bool:
        """Whether all targets share a network."""
        return any(stories[self.keys[0]]["hyper"][0] in JOINT for stories in self.stories.values())

    @cached_property
    def widths(self) -> list[tuple[int, ...]]:
        """The widths of the hidden layers; empty where there are none to choose."""
        of = next(iter(self.stories.values()))
        hyper = [of[key]["hyper"][1] for key in self.keys]
        return list(dict.fromkeys(tuple(each["hidden"]) for each in hyper if "hidden" in each))

    def choose(self, width: tuple[int, ...] | None = None) -> Chosen:
        """Choose by the inner folds, of one width if asked for: a network for all targets, or a head for each."""
        of = next(iter(self.stories.values()))
        keys = [k for k in self.keys if width is None or of[k]["hyper"][1].get("hidden") == list(width)]
        briers = {name: [told[key]["inner_brier"] for key in keys] for name, told in self.stories.items()}
        if any(brier is None for each in briers.values() for brier in each):
            return Chosen(dict.fromkeys(briers, keys[len(keys) // 2]), None)
        if self.is_joint:
            at = dict.fromkeys(briers, int(np.mean(list(briers.values()), axis=0).argmin()))
        else:
            at = {target: int(np.argmin(scores)) for target, scores in briers.items()}
        brier = float(np.mean([briers[target][n] for target, n in at.items()]))
        return Chosen({target: keys[n] for target, n in at.items()}, brier)

    def head(self, target: str, key: str) -> HeadFile:
        """Read a head."""
        return load_heads(self.files[target][key])[key]


@dataclass(frozen=True)
class Bench:
    """A split's samples, and how they are drawn anew.

    Attributes:
        split: its name.
        table: all samples.
        draws: of the groups of its rows.
    """

    split: str
    table: pd.DataFrame
    draws: Draws

    @cached_property
    def place(self) -> pd.Index:
        """Digest -> row of the table."""
        place: pd.Index = pd.Index(self.table.digest)
        return place

    def score(self, part: PartHeads, chosen: Chosen, *, inner: bool = False) -> dict[str, dict[str, Drawn]]:
        """Score chosen heads on their test part; or on their training part, by fits that have not seen the rows."""
        asked = {
            target: self._questions(target, part.head(target, key), inner=inner)
            for target, key in chosen.keys.items()
        }
        return draw_targets(asked, self.draws, micro=not inner)

    def calibration(self, part: PartHeads, chosen: Chosen, target: str) -> float:
        """The expected calibration error on the test part; rows count alike."""
        tested = self._tested(target, part.head(target, chosen.keys[target]))
        return expected_calibration_error(tested.log_proba, tested.labels, np.ones(len(tested.labels)))

    def _questions(self, target: str, file: HeadFile, *, inner: bool) -> list[Question]:
        unseen = self._part(target, file, file.inner, file.train_rows) if file.inner is not None else None
        if inner and unseen is not None:
            return questions_of(unseen, None)
        threshold = best_threshold(unseen.log_proba, unseen.labels) if unseen is not None else None
        return questions_of(self._tested(target, file), threshold)

    def _tested(self, target: str, file: HeadFile) -> TestPart:
        return self._part(target, file, file.log_proba, file.test_rows)

    def _part(self, target: str, file: HeadFile, said: np.ndarray, digests: Sequence[str]) -> TestPart:
        rows = self.place.get_indexer(pd.Index(digests))
        numbers = {name: number for number, name in enumerate(file.story["classes"])}
        labels = self.table[answer_column(target)].iloc[rows].map(numbers).to_numpy()
        return TestPart(rows, labels, self.table.weight.iloc[rows].to_numpy(), said)


@dataclass(frozen=True)
class SplitHeads:
    """An experiment on a split: its heads for every seed, and what was chosen of them.

    Attributes:
        name: of the experiment.
        parts: one for each seed.
        bench: the split's.
    """

    name: str
    parts: list[PartHeads]
    bench: Bench

    @cached_property
    def chosen(self) -> list[Chosen]:
        """For each seed, by the inner folds."""
        return [part.choose() for part in self.parts]

    @cached_property
    def scored(self) -> Scored:
        """For each seed, on the test part."""
        return [self.bench.score(part, one) for part, one in zip(self.parts, self.chosen, strict=True)]

    def of_width(self, width: tuple[int, ...]) -> Scored:
        """For each seed what inner folds say of the best of one width."""
        return [self.bench.score(part, part.choose(width), inner=True) for part in self.parts]

    def rows(self) -> list[Row]:
        """One for each head and target; scores stand with those that were chosen."""
        rows = []
        for part, one, scores in zip(self.parts, self.chosen, self.scored, strict=True):
            for target, stories in part.stories.items():
                for key in part.keys:
                    rows.append(self._row(target, part, stories[key]))
                    path = part.files[target][key]
                    rows[-1] |= {"key": key, "file": f"{HEADS}/{path.parent.name}/{path.name}"}
                    if one.keys[target] == key:
                        rows[-1] |= {"chosen": True} | columns(scores[target])
        return rows

    def _row(self, target: str, part: PartHeads, story: Mapping[str, Any]) -> Row:
        kind, hyper = story["hyper"]
        spelled = {
            field: "x".join(map(str, value)) if field == "hidden" else value
            for field, value in hyper.items()
            if field not in ("seed", "factors")
        }
        return {
            "experiment": self.name,
            "target": target,
            "split": self.bench.split,
            "seed": part.seed,
            "head": kind,
            **spelled,
            **({"first_seed": hyper["seed"]} if "seed" in hyper else {}),
            "train": story["train"],
            "test": story["test"],
            **{fact: story.get(fact) for fact in FACTS},
            "chosen": False,
        }

    def means(self) -> list[Row]:
        """One for each target, macro and micro: the mean over the seeds."""
        both = list(zip(self.parts, self.chosen, strict=True))
        briers = [one.brier for one in self.chosen if one.brier is not None]
        known = {
            target: float(np.mean([part.stories[target][one.keys[target]]["test"] for part, one in both]))
            for target in self.parts[0].stories
        }
        return [
            {
                "experiment": self.name,
                "split": self.bench.split,
                "target": target,
                "seeds": len(both),
                "known": known.get(target, sum(known.values())),
                "inner_brier": float(np.mean(briers)) if briers else None,
                "calibration_error": float(
                    np.mean([self.bench.calibration(part, one, target) for part, one in both])
                )
                if target in known
                else None,
                **columns(mean_scores([seed[target] for seed in self.scored])),
                **_spread([seed[target] for seed in self.scored]),
            }
            for target in self.scored[0]
        ]


def apart(ones: Scored, others: Scored, target: str) -> list[Row]:
    """How far one experiment's scores on a target lie above another's, a row for each metric."""
    return [{"metric": metric} | _difference(ones, others, target, metric) for metric in ANSWER_METRICS]


def gains(joint: SplitHeads, separate: SplitHeads) -> list[Row]:
    """What joint training changes: one row for each target, macro and micro, and metric."""
    told = {"split": joint.bench.split, "joint": joint.name, "separate": separate.name}
    return [
        told | {"target": target} | row
        for target in joint.scored[0]
        for row in apart(joint.scored, separate.scored, target)
    ]


def widths(joint: SplitHeads, separate: SplitHeads) -> list[Row]:
    """What inner folds say of joint and separate networks of each width.

    Returns:
        One row for each width; none for layers, which have the widths that they have, and none without folds, where
        there is nothing to judge by but the test part.
    """
    if any(one.brier is None for one in joint.chosen):
        return []
    told = {"split": joint.bench.split, "joint": joint.name, "separate": separate.name}
    rows = []
    for width in joint.parts[0].widths:
        ones, others = joint.of_width(width), separate.of_width(width)
        rows.append(
            told
            | {
                "width": "x".join(map(str, width)),
                "metric": HEADLINE,
                "joint_value": _macro(ones),
                "separate_value": _macro(others),
                **_difference(ones, others, MACRO, HEADLINE),
            }
        )
    return rows


def _macro(scored: Scored) -> float:
    return float(np.mean([seed[MACRO][HEADLINE].value for seed in scored]))


def _difference(ones: Scored, others: Scored, target: str, metric: str) -> Row:
    """How far one experiment's score lies above another's; of one group alone no draw tells whether that is real."""
    mine = [seed[target][metric] for seed in ones]
    found = less(mine, [seed[target][metric] for seed in others])
    several = len(np.unique(np.concatenate([_decided(seed, target, metric) for seed in ones]))) > 1
    real = bool(several and (found.low > 0 or found.high < 0))
    return {"difference": found.value, "low": found.low, "high": found.high, "real": real}


def _decided(seed: Mapping[str, Mapping[str, Drawn]], target: str, metric: str) -> np.ndarray:
    """The groups that decide a score; of a mean over targets, those that decide any."""
    targets = [name for name in seed if name not in (MACRO, MICRO)] if target == MACRO else [target]
    return np.concatenate([seed[name][metric].groups for name in targets])


def _spread(scores: Sequence[Mapping[str, Drawn]]) -> dict[str, float]:
    """What the seeds did."""
    if len(scores) < 2:
        return {}
    return {
        f"{metric.replace(' ', '_')}_sd": float(np.std([each[metric].value for each in scores], ddof=1))
        for metric in ANSWER_METRICS
    }
