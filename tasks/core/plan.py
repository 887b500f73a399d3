"""What a study would run, and why: decided by looking at what is there, without doing any of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, Inputs
from tasks.core.manifest import list_samples, locate
from tasks.core.samples import Source, assemble, check_enough, look, table_identity, tell
from tasks.core.shards import Holdings, Layout
from tasks.core.splits import SplitSpec
from tasks.core.store import holdings
from tasks.core.trials import Part, heads_there, labelled, parts_of, shelf_of, shelves_identity


@dataclass(frozen=True)
class Survey:
    """What is known of a study's samples before any file is read.

    Attributes:
        table: the usable samples among the files that have not changed.
        rows: how many lines the manifest has.
        unchanged: files of which all is known.
        unread: files that are new or have changed; what is in them is not known.
        quarantined: rows known to be set aside.
    """

    table: pd.DataFrame
    rows: int
    unchanged: int
    unread: int
    quarantined: int


@dataclass(frozen=True)
class Wanted:
    """A feature set that a study needs.

    Attributes:
        backbone: its name in the study.
        tap: as experiments spell it.
        view: sets of one view are filled by one pass.
        folder: where the set lies, or will.
    """

    backbone: str
    tap: str
    view: str
    folder: Path


@dataclass(frozen=True)
class SetPlan:
    """What becomes of one feature set.

    Attributes:
        wanted: the set.
        held: rows of the study's samples that are there.
        missing: digests of samples whose rows are not there, among those that are known.
        reason: why rows are missing, or "".
        row_bytes: bytes of a row as stored, or None where no row was ever stored.
    """

    wanted: Wanted
    held: int
    missing: frozenset[str]
    reason: str
    row_bytes: int | None


@dataclass(frozen=True)
class TrialPlan:
    """What becomes of one experiment: of the heads that it needs, how many are there."""

    name: str
    needed: int
    there: int


@dataclass(frozen=True)
class Plan:
    """What a study would run.

    Attributes:
        survey: of its samples. Where files must be read first, all other figures are the most that may be.
        sets: one for each feature set.
        trials: one for each experiment.
    """

    survey: Survey
    sets: list[SetPlan]
    trials: list[TrialPlan]

    def to_extract(self, backbone: str) -> int:
        """Count the passes of a sample through a network: each view's sets are filled together."""
        missing: dict[str, set[str]] = {}
        for each in self.sets:
            if each.wanted.backbone == backbone:
                missing.setdefault(each.wanted.view, set()).update(each.missing)
        return sum(len(digests) + self.survey.unread for digests in missing.values())

    def is_empty(self) -> bool:
        """Whether there is nothing to read, to extract or to train."""
        return not (
            self.survey.unread
            or any(each.missing for each in self.sets)
            or any(each.there < each.needed for each in self.trials)
        )


def survey(source: Source, artifacts: Artifacts) -> Survey:
    """Look at a study's samples; no file is opened.

    Raises:
        RequestError: if there are too few usable samples. It cannot be told while files are to be read.
    """
    frame = list_samples(source.place, source.columns.names())
    places, problems = locate(frame["path"].tolist(), source.root)
    known, unread = look(places, problems, artifacts)
    is_known = [place not in unread for place in places]
    left = frame if not unread else frame[is_known]
    if unread:
        places = [place for place in places if place not in unread]
        problems = [problem for problem, kept in zip(problems, is_known, strict=True) if kept]
    table, quarantine = assemble(left, places, tell(places, problems, known), source.columns)
    if not unread:
        check_enough(table, quarantine, len(frame), most_bad=source.most_bad)
    unchanged = sum(bool(item.digest) for item in known.values())
    return Survey(table, len(frame), unchanged, len(unread), len(quarantine))


def decide(
    found: Survey,
    wanted: Sequence[Wanted],
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    artifacts: Artifacts,
) -> Plan:
    """Say what is there and what a run would add.

    Args:
        found: the study's samples.
        wanted: the feature sets that it needs.
        trials: its experiments, each with the names of its feature sets, in order.
        splits: with their seeds.
        artifacts: where to look.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    seen = artifacts.seen("shard")
    held = {each.folder: holdings(each.folder, seen) for each in wanted}
    digests = found.table.digest.tolist()
    sets = [_plan_set(each, held, wanted, digests) for each in wanted]
    return Plan(found, sets, _plan_trials(found, trials, splits, artifacts))


def _plan_set(
    each: Wanted, held: Mapping[Path, Holdings], wanted: Sequence[Wanted], digests: Sequence[str]
) -> SetPlan:
    here = held[each.folder]
    numbers = here.rows.find(digests)
    missing = frozenset(digests[place] for place in np.flatnonzero(numbers == here.rows.total).tolist())
    kin = any(held[other.folder].shards for other in wanted if other.backbone == each.backbone)
    return SetPlan(
        wanted=each,
        held=len(digests) - len(missing),
        missing=missing,
        reason=_reason(here, kin) if missing or not here.shards else "",
        row_bytes=_row_bytes(here.shards[0].layout) if here.shards else None,
    )


def _row_bytes(layout: Layout) -> int:
    return math.prod(layout.shape[1:]) * np.dtype(layout.dtype).itemsize


def _reason(here: Holdings, has_kin: bool) -> str:
    """Say why rows are missing; `has_kin` tells that other taps or views of the backbone have rows."""
    if here.damaged:
        return f"{len(here.damaged)} damaged shard{'s' * (len(here.damaged) > 1)}"
    if here.shards:
        return "new or changed samples"
    return "new tap or view" if has_kin else "none of this backbone yet"


def _plan_trials(
    found: Survey,
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    artifacts: Artifacts,
) -> list[TrialPlan]:
    seeds = sum(len(spec.seeds) for spec in splits)
    needed = {trial.name: len(trial.hypers) * seeds for trial, _ in trials}
    if found.unread:  # another table of samples means other heads
        return [TrialPlan(trial.name, needed[trial.name], 0) for trial, _ in trials]
    samples, table, seen = table_identity(found.table), labelled(found.table), artifacts.seen("head")
    parts = cache(lambda: list(parts_of(table, splits)))
    shelves = cache(partial(_shelves, artifacts.heads, table, parts))
    plans = []
    for trial, sets in trials:
        identity = shelves_identity(trial.inputs, sets, samples, splits)
        named = partial(shelves, trial.inputs, tuple(sets))
        there = heads_there(artifacts.heads, identity, trial, seen, named)
        plans.append(TrialPlan(trial.name, needed[trial.name], there))
    return plans


def _shelves(
    folder: Path,
    table: pd.DataFrame,
    parts: Callable[[], Sequence[Part]],
    inputs: Inputs,
    sets: Sequence[str],
) -> list[Path]:
    return [shelf_of(folder, inputs, sets, table, part) for part in parts()]
